//! What of an object nobody reads.

use serde_json::{Value, json};

/// Drops what is large and never looked at.
pub(super) fn slim(kind: &str, object: &mut Value) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    match kind {
        "Pod" => {
            let spec = object["spec"].take();
            let containers = spec["containers"].as_array().map_or(&[][..], Vec::as_slice).iter();
            let containers: Vec<Value> = containers
                .map(|one| json!({"name": one["name"], "resources": {"limits": one["resources"]["limits"]}}))
                .collect();
            object["spec"] = json!({
                "nodeName": spec["nodeName"],
                "priorityClassName": spec["priorityClassName"],
                "containers": containers,
            });
        }
        // The template is what we applied ourselves; its revision label is all that is asked for.
        "Deployment" | "Job" => {
            let labels = object["spec"]["template"]["metadata"]["labels"].take();
            if let Some(spec) = object["spec"].as_object_mut() {
                spec.insert("template".to_owned(), json!({"metadata": {"labels": labels}}));
            }
        }
        "JobSet" => {
            let suspend = object["spec"]["suspend"].take();
            object["spec"] = json!({ "suspend": suspend });
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_is_read() {
        let mut pod = json!({"metadata": {"name": "a", "managedFields": [1]}, "status": {"phase": "Running"},
            "spec": {"nodeName": "n", "containers": [{"name": "server", "env": [], "resources": {"limits": {"memory": "1Gi"}, "requests": {}}}]}});
        slim("Pod", &mut pod);
        assert!(pod["metadata"]["managedFields"].is_null());
        let limits = json!({"limits": {"memory": "1Gi"}});
        assert_eq!(pod["spec"]["containers"], json!([{"name": "server", "resources": limits}]));
        assert_eq!((&pod["spec"]["nodeName"], &pod["status"]["phase"]), (&json!("n"), &json!("Running")));
        let mut job = json!({"metadata": {}, "spec": {"completions": 2,
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}}}});
        slim("Job", &mut job);
        let mut set = json!({"metadata": {}, "spec": {"replicatedJobs": [1]}, "status": {"restarts": 0}});
        slim("JobSet", &mut set);
        assert!(set["spec"]["replicatedJobs"].is_null() && set["status"]["restarts"] == 0);
        assert_eq!(job["spec"], json!({"completions": 2, "template": {"metadata": {"labels": {"a": "b"}}}}));
    }
}
