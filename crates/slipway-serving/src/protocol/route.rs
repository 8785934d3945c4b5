//! Paths of both protocols.

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route<'a> {
    /// `/`
    Root,
    /// `/metrics`
    Metrics,
    /// `/v2`
    Server,
    /// `/v2/health/live`
    Live,
    /// `/v2/health/ready`
    Ready,
    /// `/v2/models/M[/versions/V]…`
    Oip(ModelRoute<'a>, OipAction),
    /// `/v1/models/M[/versions/V|/labels/L]…`
    Tfs(ModelRoute<'a>, TfsAction),
    /// Below `/v1`, but not a path of TensorFlow Serving's.
    Malformed,
    /// Anything else.
    Unknown,
}

/// Which model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelRoute<'a> {
    /// Name, as in the path: percent-encoded.
    pub name: &'a str,
    /// Which version.
    pub selector: Selector<'a>,
}

/// Which version of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selector<'a> {
    /// The one that is served.
    Any,
    /// By number, as in the path.
    Version(&'a str),
    /// By label.
    Label(&'a str),
}

/// What the Open Inference Protocol does with a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OipAction {
    /// Its metadata.
    Metadata,
    /// Whether it is ready.
    Ready,
    /// Inference.
    Infer,
}

/// What TensorFlow Serving does with a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TfsAction {
    /// State of its versions.
    Status,
    /// Its signatures.
    Metadata,
    /// Inference.
    Predict,
    /// Inference over `tf.Example`s.
    Classify,
    /// Inference over `tf.Example`s.
    Regress,
}

impl<'a> Route<'a> {
    /// What `path` names; the query is no part of it.
    pub fn parse(path: &'a str) -> Self {
        if let Some(rest) = path.strip_prefix("/v1/") {
            return tfs(rest).unwrap_or(Self::Malformed);
        }
        match path.strip_suffix('/').unwrap_or(path) {
            "" => Self::Root,
            "/metrics" => Self::Metrics,
            "/v2" => Self::Server,
            "/v2/health/live" => Self::Live,
            "/v2/health/ready" => Self::Ready,
            "/v1" => Self::Malformed,
            path => path.strip_prefix("/v2/models/").and_then(oip).unwrap_or(Self::Unknown),
        }
    }
}

fn oip(rest: &str) -> Option<Route<'_>> {
    let mut parts = rest.split('/').peekable();
    let name = parts.next().filter(|n| !n.is_empty())?;
    let selector = if parts.next_if_eq(&"versions").is_some() {
        Selector::Version(parts.next().filter(|v| !v.is_empty())?)
    } else {
        Selector::Any
    };
    let action = match parts.next() {
        None => OipAction::Metadata,
        Some("ready") => OipAction::Ready,
        Some("infer") => OipAction::Infer,
        Some(_) => return None,
    };
    parts.next().is_none().then_some(Route::Oip(ModelRoute { name, selector }, action))
}

fn tfs(rest: &str) -> Option<Route<'_>> {
    let rest = rest.strip_prefix("models/")?;
    let (rest, action) = match rest.rsplit_once(':') {
        None => match rest.strip_suffix("/metadata") {
            Some(rest) => (rest, TfsAction::Metadata),
            None => (rest, TfsAction::Status),
        },
        Some((rest, "predict")) => (rest, TfsAction::Predict),
        Some((rest, "classify")) => (rest, TfsAction::Classify),
        Some((rest, "regress")) => (rest, TfsAction::Regress),
        Some(_) => return None,
    };
    let mut parts = rest.split('/');
    let name = parts.next().filter(|n| !n.is_empty() && !n.contains(':'))?;
    let selector = match (parts.next(), parts.next()) {
        (None, None) => Selector::Any,
        (Some("versions"), Some(v)) if !v.is_empty() && v.bytes().all(|b| b.is_ascii_digit()) => {
            Selector::Version(v)
        }
        (Some("labels"), Some(label)) if !label.is_empty() && !label.contains(':') => Selector::Label(label),
        _ => return None,
    };
    parts.next().is_none().then_some(Route::Tfs(ModelRoute { name, selector }, action))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_path() {
        let model = |name, selector| ModelRoute { name, selector };
        let any = model("m", Selector::Any);
        for (path, route) in [
            ("/", Route::Root),
            ("/metrics", Route::Metrics),
            ("/v2", Route::Server),
            ("/v2/", Route::Server),
            ("/v2/health/live", Route::Live),
            ("/v2/health/ready", Route::Ready),
            ("/v2/models/m", Route::Oip(any, OipAction::Metadata)),
            ("/v2/models/m/ready", Route::Oip(any, OipAction::Ready)),
            ("/v2/models/m/infer", Route::Oip(any, OipAction::Infer)),
            (
                "/v2/models/m/versions/3/infer",
                Route::Oip(model("m", Selector::Version("3")), OipAction::Infer),
            ),
            ("/v2/models/m/versions/3", Route::Oip(model("m", Selector::Version("3")), OipAction::Metadata)),
            ("/v2/models/", Route::Unknown),
            ("/v2/models/m/versions", Route::Unknown),
            ("/v2/models/m/infer/x", Route::Unknown),
            ("/v1/models/m", Route::Tfs(any, TfsAction::Status)),
            ("/v1/models/m/metadata", Route::Tfs(any, TfsAction::Metadata)),
            ("/v1/models/m:predict", Route::Tfs(any, TfsAction::Predict)),
            ("/v1/models/m:classify", Route::Tfs(any, TfsAction::Classify)),
            ("/v1/models/m:regress", Route::Tfs(any, TfsAction::Regress)),
            (
                "/v1/models/m/versions/12:predict",
                Route::Tfs(model("m", Selector::Version("12")), TfsAction::Predict),
            ),
            (
                "/v1/models/m/labels/gold:predict",
                Route::Tfs(model("m", Selector::Label("gold")), TfsAction::Predict),
            ),
            (
                "/v1/models/m/versions/12/metadata",
                Route::Tfs(model("m", Selector::Version("12")), TfsAction::Metadata),
            ),
            (
                "/v1/models/My%20Model:predict",
                Route::Tfs(model("My%20Model", Selector::Any), TfsAction::Predict),
            ),
            ("/v1/models/m/versions/x:predict", Route::Malformed),
            ("/v1/models/:predict", Route::Malformed),
            ("/v1/models/m:foo", Route::Malformed),
            ("/v1/models/m/x", Route::Malformed),
            ("/v1/x", Route::Malformed),
            ("/x", Route::Unknown),
            ("/v3/models/m", Route::Unknown),
        ] {
            assert_eq!(Route::parse(path), route, "{path}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(path in "/(v1|v2)?[/a-z:0-9é]{0,30}") {
            Route::parse(&path);
        }
    }
}
