//! The Python worker, embedded so that an engine can write it out beside a model.

/// Every file of the worker, as a path relative to [`RunnerConfig::python_dir`] and its contents.
///
/// [`RunnerConfig::python_dir`]: slipway_types::service::RunnerConfig::python_dir
pub const WORKER_FILES: &[(&str, &[u8])] = &[
    ("slipway_worker/__init__.py", include_bytes!("../python/slipway_worker/__init__.py")),
    ("slipway_worker/__main__.py", include_bytes!("../python/slipway_worker/__main__.py")),
    ("slipway_worker/arena.py", include_bytes!("../python/slipway_worker/arena.py")),
    ("slipway_worker/frames.py", include_bytes!("../python/slipway_worker/frames.py")),
    ("slipway_worker/tensors.py", include_bytes!("../python/slipway_worker/tensors.py")),
    ("slipway_worker/signature.py", include_bytes!("../python/slipway_worker/signature.py")),
    ("slipway_worker/warmup.py", include_bytes!("../python/slipway_worker/warmup.py")),
    ("slipway_worker/results.py", include_bytes!("../python/slipway_worker/results.py")),
    ("slipway_worker/serve.py", include_bytes!("../python/slipway_worker/serve.py")),
    ("slipway_worker/loaders/__init__.py", include_bytes!("../python/slipway_worker/loaders/__init__.py")),
    ("slipway_worker/loaders/find.py", include_bytes!("../python/slipway_worker/loaders/find.py")),
    (
        "slipway_worker/loaders/tf_saved_model.py",
        include_bytes!("../python/slipway_worker/loaders/tf_saved_model.py"),
    ),
    (
        "slipway_worker/loaders/keras_archive.py",
        include_bytes!("../python/slipway_worker/loaders/keras_archive.py"),
    ),
    (
        "slipway_worker/loaders/torch_common.py",
        include_bytes!("../python/slipway_worker/loaders/torch_common.py"),
    ),
    (
        "slipway_worker/loaders/torch_state.py",
        include_bytes!("../python/slipway_worker/loaders/torch_state.py"),
    ),
    (
        "slipway_worker/loaders/torch_script.py",
        include_bytes!("../python/slipway_worker/loaders/torch_script.py"),
    ),
    (
        "slipway_worker/loaders/onnx_graph.py",
        include_bytes!("../python/slipway_worker/loaders/onnx_graph.py"),
    ),
    (
        "slipway_worker/loaders/sklearn_joblib.py",
        include_bytes!("../python/slipway_worker/loaders/sklearn_joblib.py"),
    ),
    (
        "slipway_worker/loaders/python_class.py",
        include_bytes!("../python/slipway_worker/loaders/python_class.py"),
    ),
];

/// The one of [`WORKER_FILES`] that the interpreter runs.
pub const WORKER_SCRIPT: &str = "slipway_worker/__main__.py";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_python_file_is_embedded() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("python");
        let mut found = Vec::new();
        let mut folders = vec![root.join("slipway_worker")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|e| e == "py") {
                    found.push(path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        found.sort();
        let mut embedded: Vec<_> = WORKER_FILES.iter().map(|(path, _)| (*path).to_owned()).collect();
        embedded.sort();
        assert_eq!(found, embedded);
        assert!(embedded.iter().any(|p| p == WORKER_SCRIPT));
    }
}
