//! Build arguments: who declares them, and what value they have where.

use std::collections::{BTreeMap, BTreeSet};

use slipway_types::image::Platform;

use super::Located;
use crate::build::dockerfile::{Arg, Dockerfile, InstructionKind};
use crate::build::error::{Fault, StepErrorKind};
use crate::build::words;

/// Arguments that RUN sees without any ARG, and that are in neither history nor cache keys.
const PROXY_ARGS: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Whether an argument means something without any ARG that declares it.
pub(crate) fn is_predefined(name: &str) -> bool {
    PROXY_ARGS.contains(&name)
        || name == "SOURCE_DATE_EPOCH"
        || name.starts_with("BUILDKIT_")
        || platform_value(name, &Platform::host(), "").is_some()
}

/// An argument that a stage declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StageArg {
    pub(crate) name: String,
    pub(crate) value: Option<String>,
}

/// Arguments outside the stages: of the request, of ARG before FROM, and of the platform.
#[derive(Debug)]
pub(crate) struct Globals {
    build_args: BTreeMap<String, String>,
    declared: BTreeMap<String, Option<String>>,
    host: Platform,
}

impl Globals {
    /// Evaluates the ARGs before the first FROM.
    pub(crate) fn new(
        dockerfile: &Dockerfile,
        build_args: &BTreeMap<String, String>,
        host: &Platform,
    ) -> Result<Self, Located> {
        let mut globals =
            Self { build_args: build_args.clone(), declared: BTreeMap::new(), host: host.clone() };
        let escape = dockerfile.directives.escape;
        for instruction in &dockerfile.globals {
            for arg in &instruction.args {
                let value = match globals.build_args.get(&arg.name.text) {
                    Some(value) => Some(value.clone()),
                    None => match &arg.default {
                        None => globals.platform(&arg.name.text, ""),
                        Some(word) => {
                            let expanded = words::expand(&word.text, &|name| globals.in_from(name), escape);
                            let value = expanded.map_err(|source| {
                                let kind = StepErrorKind::Expand { word: word.text.clone(), source };
                                (Fault::from(kind).at(word.span), instruction.span)
                            })?;
                            Some(value)
                        }
                    },
                };
                globals.declared.insert(arg.name.text.clone(), value);
            }
        }
        Ok(globals)
    }

    /// The value of a variable in FROM.
    pub(crate) fn in_from(&self, name: &str) -> Option<String> {
        match self.declared.get(name) {
            Some(value) => value.clone(),
            None => self.platform(name, ""),
        }
    }

    /// The value that an ARG of a stage gets. `default` is its own, expanded.
    pub(crate) fn in_stage(&self, arg: &Arg, default: Option<String>, stage: &str) -> Option<String> {
        let name = &arg.name.text;
        if let Some(value) = self.build_args.get(name) {
            return Some(value.clone());
        }
        default.or_else(|| self.declared.get(name).cloned().flatten()).or_else(|| self.platform(name, stage))
    }

    /// Proxies that the request gives, for RUN steps.
    pub(crate) fn proxies(&self) -> impl Iterator<Item = (&str, &str)> {
        PROXY_ARGS.iter().filter_map(|&name| self.build_args.get(name).map(|value| (name, value.as_str())))
    }

    /// `SOURCE_DATE_EPOCH` of the request, else of an ARG before FROM.
    pub(crate) fn source_date_epoch(&self) -> Option<&str> {
        const NAME: &str = "SOURCE_DATE_EPOCH";
        let declared = || self.declared.get(NAME).and_then(Option::as_deref);
        self.build_args.get(NAME).map(String::as_str).or_else(declared).filter(|text| !text.is_empty())
    }

    fn platform(&self, name: &str, stage: &str) -> Option<String> {
        platform_value(name, &self.host, stage)
    }
}

/// Docker's arguments about the platform. Builds here are for the machine that they run on.
fn platform_value(name: &str, host: &Platform, stage: &str) -> Option<String> {
    Some(match name {
        "TARGETPLATFORM" | "BUILDPLATFORM" => host.to_string(),
        "TARGETOS" | "BUILDOS" => host.os.clone(),
        "TARGETARCH" | "BUILDARCH" => host.architecture.clone(),
        "TARGETVARIANT" | "BUILDVARIANT" => host.variant.clone().unwrap_or_default(),
        "TARGETSTAGE" => stage.to_owned(),
        _ => return None,
    })
}

/// Names of all ARGs of a Dockerfile.
pub(crate) fn declared_args(dockerfile: &Dockerfile) -> BTreeSet<&str> {
    let global = dockerfile.globals.iter().flat_map(|instruction| &instruction.args);
    let instructions = dockerfile.stages.iter().flat_map(|stage| &stage.instructions);
    let local = instructions.filter_map(|instruction| match &instruction.kind {
        InstructionKind::Arg(args) => Some(args),
        _ => None,
    });
    global.chain(local.flatten()).map(|arg| arg.name.text.as_str()).collect()
}
