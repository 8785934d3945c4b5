//! From an image's configuration and what the user asked for to what the runtime executes. Pure.

use std::path::PathBuf;

use oci_spec::image::ImageConfiguration;
use slipway_runtime::Process;
use slipway_types::container::ContainerSpec;

use crate::error::NativeError;

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a container executes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchPlan {
    /// Program, environment, folder and user.
    pub process: Process,
    /// Signal that asks it to stop.
    pub stop_signal: Option<String>,
}

/// Docker's rules: an entrypoint given by the user drops the image's command; a command given by the user replaces it.
pub fn plan_launch(image: &ImageConfiguration, spec: &ContainerSpec) -> Result<LaunchPlan, NativeError> {
    let config = image.config().clone().unwrap_or_default();
    let own = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let (mut args, default_command) = match &spec.entrypoint {
        Some(entrypoint) => (entrypoint.clone(), Vec::new()),
        None => (own(config.entrypoint()), own(config.cmd())),
    };
    args.extend(if spec.command.is_empty() { default_command } else { spec.command.clone() });
    if args.first().is_none_or(String::is_empty) {
        return Err(NativeError::NoCommand);
    }
    let mut env = own(config.env());
    if !env.iter().any(|pair| pair.starts_with("PATH=")) {
        env.insert(0, DEFAULT_PATH.to_owned());
    }
    spec.env.iter().for_each(|pair| set(&mut env, pair));
    let folder = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    let cwd = spec.workdir.clone().or_else(|| folder(config.working_dir())).unwrap_or_else(|| "/".to_owned());
    // Docker reads a relative `-w` from the root.
    let cwd = PathBuf::from("/").join(cwd);
    let user = spec.user.clone().or_else(|| config.user().clone()).unwrap_or_default();
    let stop_signal = spec.stop_signal.clone().or_else(|| folder(config.stop_signal()));
    Ok(LaunchPlan { process: Process { args, env, cwd, user }, stop_signal })
}

/// Sets one `KEY=value`, in the place of the pair that it replaces.
pub(crate) fn set(env: &mut Vec<String>, pair: &str) {
    let key = pair.split('=').next().unwrap_or(pair);
    let same = |known: &String| known.split('=').next() == Some(key);
    match env.iter().position(same) {
        Some(at) => pair.clone_into(&mut env[at]),
        None => env.push(pair.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::image::{ConfigBuilder, ImageConfigurationBuilder, RootFsBuilder};

    fn image(entrypoint: &[&str], command: &[&str]) -> ImageConfiguration {
        let strings = |list: &[&str]| list.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        let config = ConfigBuilder::default()
            .entrypoint(strings(entrypoint))
            .cmd(strings(command))
            .env(strings(&["A=1", "B=2"]))
            .working_dir("/app")
            .user("app")
            .stop_signal("SIGINT")
            .build()
            .unwrap();
        let rootfs = RootFsBuilder::default().typ("layers").diff_ids(Vec::<String>::new()).build().unwrap();
        ImageConfigurationBuilder::default()
            .architecture("amd64")
            .os("linux")
            .rootfs(rootfs)
            .config(config)
            .build()
            .unwrap()
    }

    fn args(image: &ImageConfiguration, entrypoint: Option<&[&str]>, command: &[&str]) -> Vec<String> {
        let strings = |list: &[&str]| list.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        let spec = ContainerSpec {
            entrypoint: entrypoint.map(strings),
            command: strings(command),
            ..ContainerSpec::default()
        };
        plan_launch(image, &spec).map(|plan| plan.process.args).unwrap_or_default()
    }

    #[test]
    fn entrypoint_and_command_combine_as_docker_has_it() {
        let both = image(&["entry"], &["default"]);
        assert_eq!(args(&both, None, &[]), ["entry", "default"]);
        assert_eq!(args(&both, None, &["given"]), ["entry", "given"]);
        assert_eq!(args(&both, Some(&["other"]), &[]), ["other"]);
        assert_eq!(args(&both, Some(&[]), &["given"]), ["given"]);
        assert!(args(&image(&[], &[]), None, &[]).is_empty());
    }

    #[test]
    fn flags_go_before_the_image() {
        let spec = ContainerSpec {
            command: vec!["x".into()],
            env: vec!["B=3".into(), "C=4".into()],
            workdir: Some("tmp".into()),
            user: Some("0:0".into()),
            ..ContainerSpec::default()
        };
        let plan = plan_launch(&image(&[], &[]), &spec).unwrap();
        assert_eq!(plan.process.env, [DEFAULT_PATH, "A=1", "B=3", "C=4"]);
        assert_eq!(plan.process.cwd, PathBuf::from("/tmp"));
        assert_eq!((plan.process.user.as_str(), plan.stop_signal.as_deref()), ("0:0", Some("SIGINT")));
        let plain = plan_launch(&image(&["e"], &[]), &ContainerSpec::default()).unwrap();
        assert_eq!((plain.process.cwd, plain.process.user.as_str()), (PathBuf::from("/app"), "app"));
    }
}
