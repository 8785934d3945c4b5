//! What the API server refuses.

use super::clip;
use crate::client::Refusal;

/// A refusal in one sentence, with what to do.
pub fn refusal(refusal: &Refusal) -> String {
    let message = clip(&refusal.message);
    if refusal.namespace_ends() {
        let namespace = between(&message, "in namespace ", " because").unwrap_or("the namespace");
        return format!(
            "namespace {namespace} is being deleted, so nothing can be made in it: wait until it is gone and create it again, or use another"
        );
    }
    if let Some(text) = quota(&message) {
        return text;
    }
    if let Some(text) = admission(&message) {
        return text;
    }
    match refusal.code {
        401 => {
            "the API server does not accept the credentials, which may have expired: log in again".to_owned()
        }
        403 => forbidden(&message),
        404 if message.starts_with("namespaces ") => {
            let namespace = between(&message, "\"", "\"").unwrap_or_default();
            format!(
                "there is no namespace {namespace}: create it with `kubectl create namespace {namespace}`, or use another"
            )
        }
        422 => invalid(refusal, &message),
        429 => "the API server has too many requests, and still had after several attempts: try again later"
            .to_owned(),
        500..=504 => {
            format!("the API server cannot answer now ({} {message}): try again later", refusal.code)
        }
        code if message.is_empty() => format!("the API server refused with status {code}"),
        code => format!("the API server refused with status {code}: {message}"),
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(found, _)| found)
}

/// `… is forbidden: exceeded quota: compute, requested: pods=1, used: pods=2, limited: pods=2`, and the same from events.
pub(super) fn quota(message: &str) -> Option<String> {
    if let Some((_, rest)) = message.split_once("exceeded quota: ") {
        let name = rest.split([',', ' ']).next().unwrap_or(rest);
        let part = |key: &str| {
            let (_, rest) = rest.split_once(key)?;
            let end = [", used:", ", limited:"].iter().filter_map(|end| rest.find(end)).min();
            Some(clip(&rest[..end.unwrap_or(rest.len())]))
        };
        let wanted = part("requested: ").unwrap_or_default();
        let (used, limited) = (part("used: ").unwrap_or_default(), part("limited: ").unwrap_or_default());
        return Some(format!(
            "quota `{name}` of the namespace is used up (asked for {wanted}; used {used} of {limited}): ask for less, remove something, or have the quota raised"
        ));
    }
    let (_, rest) = message.split_once("failed quota: ")?;
    let (name, must) = rest.split_once(": ").unwrap_or((rest, ""));
    Some(format!(
        "quota `{name}` of the namespace wants every pod to say what it needs ({}): set `memory` and `cpus`",
        clip(must)
    ))
}

fn admission(message: &str) -> Option<String> {
    if let Some(webhook) = between(message, "failed calling webhook \"", "\"") {
        return Some(format!(
            "the cluster's admission webhook `{webhook}` does not answer, so nothing can be changed: have it repaired"
        ));
    }
    if let Some((_, rest)) = message.split_once("admission webhook \"") {
        let (webhook, said) = rest.split_once('"')?;
        let said = said.trim_start_matches(" denied the request").trim_start_matches([':', ' ']);
        return Some(format!(
            "the cluster's admission webhook `{webhook}` refuses it ({}): change what it names, or ask whoever runs it",
            clip(said)
        ));
    }
    if let Some(policy) = between(message, "ValidatingAdmissionPolicy '", "'") {
        let said = message.split_once("denied request: ").map_or(message, |(_, said)| said);
        return Some(format!(
            "the cluster's admission policy `{policy}` refuses it ({}): change what it names, or ask whoever runs it",
            clip(said)
        ));
    }
    let (_, rest) = message.split_once("violates PodSecurity \"")?;
    let (level, said) = rest.split_once("\": ").unwrap_or((rest, ""));
    Some(format!(
        "the namespace's pod security standard `{level}` refuses the pods ({}): add a USER to the image's Dockerfile, or use a namespace with another standard",
        clip(said)
    ))
}

/// `deployments.apps "a" is forbidden: User "u" cannot patch resource "deployments" in API group "apps" in the namespace "n"`.
fn forbidden(message: &str) -> String {
    let user = between(message, "User \"", "\"");
    let verb = between(message, " cannot ", " resource");
    let resource = between(message, "resource \"", "\"");
    match (user, verb, resource) {
        (Some(user), Some(verb), Some(resource)) => {
            let place = between(message, "in the namespace \"", "\"")
                .map_or_else(|| "in the cluster".to_owned(), |namespace| format!("in namespace {namespace}"));
            format!(
                "`{user}` may not {verb} {resource} {place}: have the Role granted that `slipway engine rbac` prints, again if the namespace was deleted"
            )
        }
        _ => format!("the API server forbids it: {message}"),
    }
}

fn invalid(refusal: &Refusal, message: &str) -> String {
    let (_, name) = &refusal.about;
    if message.contains("field is immutable") || message.contains("field cannot be changed") {
        return format!(
            "`{name}` exists and what shall be changed of it cannot be ({message}): delete it, or use another name"
        );
    }
    let causes: Vec<String> = refusal
        .causes
        .iter()
        .take(3)
        .map(|cause| format!("{}: {}", cause.field, clip(&cause.message)))
        .collect();
    if causes.is_empty() {
        return format!("the API server finds `{name}` invalid: {message}");
    }
    format!("the API server finds `{name}` invalid: {}", causes.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(code: u16, message: &str) -> String {
        refusal(&Refusal { code, message: message.into(), ..Refusal::default() })
    }

    #[test]
    fn each_in_one_sentence_with_what_to_do() {
        let cases = [
            (
                403,
                r#"configmaps "a" is forbidden: unable to create new content in namespace team-a because it is being terminated"#,
                "namespace team-a is being deleted",
            ),
            (
                403,
                r#"pods "a" is forbidden: exceeded quota: compute, requested: pods=1,requests.cpu=2, used: pods=2,requests.cpu=4, limited: pods=2,requests.cpu=4"#,
                "quota `compute` of the namespace is used up (asked for pods=1,requests.cpu=2; used pods=2,requests.cpu=4 of pods=2,requests.cpu=4)",
            ),
            (
                403,
                r#"pods "a" is forbidden: failed quota: compute: must specify limits.memory for: server"#,
                "quota `compute` of the namespace wants every pod to say what it needs",
            ),
            (
                403,
                r#"deployments.apps "a" is forbidden: User "system:serviceaccount:ci:slipway" cannot patch resource "deployments" in API group "apps" in the namespace "team-a""#,
                "`system:serviceaccount:ci:slipway` may not patch deployments in namespace team-a: have the Role granted that `slipway engine rbac` prints",
            ),
            (
                403,
                r#"pods "a" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true (pod must not set it)"#,
                "pod security standard `restricted:latest` refuses the pods (runAsNonRoot != true",
            ),
            (
                400,
                r#"admission webhook "check.example.com" denied the request: no latest tags"#,
                "admission webhook `check.example.com` refuses it (no latest tags)",
            ),
            (
                500,
                r#"Internal error occurred: failed calling webhook "check.example.com": failed to call webhook: Post: refused"#,
                "admission webhook `check.example.com` does not answer",
            ),
            (
                422,
                r#"deployments.apps "a" is forbidden: ValidatingAdmissionPolicy 'limits' with binding 'b' denied request: set limits"#,
                "admission policy `limits` refuses it (set limits)",
            ),
            (404, r#"namespaces "team-z" not found"#, "there is no namespace team-z: create it"),
            (401, "Unauthorized", "log in again"),
            (503, "the server is currently unable to handle the request", "try again later"),
        ];
        for (code, message, expected) in cases {
            let told = said(code, message);
            assert!(told.contains(expected), "{told}\nexpected: {expected}");
            assert!(!told.contains('\n') && !told.ends_with('.'), "{told}");
        }
    }

    #[test]
    fn what_is_invalid_is_named() {
        let cause = crate::client::Cause {
            reason: "FieldValueInvalid".into(),
            message: "Invalid value: \"x\": must be no more than 15 characters".into(),
            field: "spec.ports[0].name".into(),
        };
        let told = refusal(&Refusal {
            code: 422,
            reason: "Invalid".into(),
            message: "Service \"a\" is invalid: …".into(),
            causes: vec![cause],
            about: ("Service".into(), "a".into()),
            retry_after: None,
        });
        assert!(told.contains("`a` invalid: spec.ports[0].name: Invalid value"), "{told}");
    }
}
