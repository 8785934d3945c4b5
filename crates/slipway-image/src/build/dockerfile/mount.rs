//! `RUN --mount=`.

use slipway_types::build::Span;
use slipway_types::size::parse_bytes;

use super::ast::{Mount, MountKind, Ownership, Sharing, Word};
use super::lines::Sink;
use super::suggest::nearest;

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "env",
];

/// The options of one mount, before its type says which of them count.
#[derive(Default)]
struct Options {
    kind: Option<String>,
    from: Option<String>,
    source: Option<String>,
    target: Option<String>,
    read_only: Option<bool>,
    id: Option<String>,
    sharing: Option<Sharing>,
    required: bool,
    size: Option<u64>,
    owner: Ownership,
    env: Option<String>,
}

/// Reads the value of a `--mount` flag; nothing, and a diagnostic, when it is wrong.
pub(super) fn parse(value: &Word, sink: &mut Sink<'_>) -> Option<Mount> {
    match options(&value.text).and_then(kind) {
        Ok(kind) => Some(Mount { span: value.span, kind }),
        Err(problem) => {
            problem.report(value.span, sink);
            None
        }
    }
}

struct Problem {
    code: &'static str,
    message: String,
    hint: Option<String>,
}

impl Problem {
    fn report(self, span: Span, sink: &mut Sink<'_>) {
        sink.error(self.code, span, self.message, self.hint);
    }
}

fn invalid(message: String) -> Problem {
    Problem { code: "invalid-mount", message, hint: None }
}

fn options(text: &str) -> Result<Options, Problem> {
    let mut options = Options::default();
    for field in fields(text) {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
            None => (field.to_ascii_lowercase(), None),
        };
        let given = || {
            value
                .map(str::to_owned)
                .ok_or_else(|| invalid(format!("`{key}` in a mount needs a value: `{key}=…`")))
        };
        let truth = || match value.map(str::to_ascii_lowercase).as_deref() {
            None | Some("true" | "1" | "t") => Ok(true),
            Some("false" | "0" | "f") => Ok(false),
            Some(other) => Err(invalid(format!("`{key}` is true or false, not `{other}`"))),
        };
        let number = |radix| {
            let digits = given()?;
            u32::from_str_radix(&digits, radix)
                .map_err(|_| invalid(format!("`{digits}` is not a number for `{key}`")))
        };
        match key.as_str() {
            "type" => options.kind = Some(given()?.to_ascii_lowercase()),
            "from" => {
                let from = given()?;
                if from.contains('$') {
                    return Err(Problem {
                        code: "invalid-mount",
                        message: "`from` of a mount cannot hold a variable".to_owned(),
                        hint: Some("name a stage: `FROM …$VERSION AS tools`, then `from=tools`".to_owned()),
                    });
                }
                options.from = Some(from);
            }
            "source" | "src" => options.source = Some(given()?),
            "target" | "dst" | "destination" => options.target = Some(given()?),
            "readonly" | "ro" => options.read_only = Some(truth()?),
            "readwrite" | "rw" => options.read_only = Some(!truth()?),
            "id" => options.id = Some(given()?),
            "required" => options.required = truth()?,
            "sharing" => {
                options.sharing = Some(match given()?.to_ascii_lowercase().as_str() {
                    "shared" => Sharing::Shared,
                    "private" => Sharing::Private,
                    "locked" => Sharing::Locked,
                    other => {
                        return Err(invalid(format!(
                            "`sharing` is shared, private or locked, not `{other}`"
                        )));
                    }
                });
            }
            "size" => {
                let size = given()?;
                let bytes = parse_bytes(&size).map_err(|error| invalid(error.to_string()))?;
                options.size = Some(bytes);
            }
            "mode" => options.owner.mode = Some(number(8)?),
            "uid" => options.owner.uid = Some(number(10)?),
            "gid" => options.owner.gid = Some(number(10)?),
            "env" => options.env = Some(given()?),
            _ => {
                return Err(Problem {
                    code: "invalid-mount",
                    message: format!("`{field}` is not an option of a mount"),
                    hint: nearest(&key, &KEYS).map(|near| format!("did you mean `{near}`?")),
                });
            }
        }
    }
    Ok(options)
}

fn kind(options: Options) -> Result<MountKind, Problem> {
    let kind = options.kind.as_deref().unwrap_or("bind");
    // Without a target a mount covers the working directory.
    let target =
        |target: Option<String>| target.filter(|target| !target.is_empty()).unwrap_or_else(|| ".".to_owned());
    let unexpected = |key: &str| Err(invalid(format!("`{key}` has no meaning for a `{kind}` mount")));
    if options.sharing.is_some() && kind != "cache" {
        return unexpected("sharing");
    }
    if options.size.is_some() && kind != "tmpfs" {
        return unexpected("size");
    }
    if options.owner != Ownership::default() && !matches!(kind, "cache" | "secret") {
        if kind == "ssh" {
            return Err(Problem {
                code: "invalid-mount",
                message: "`uid`, `gid` and `mode` of an `ssh` mount are not supported".to_owned(),
                hint: Some(
                    "leave them out: the socket keeps the agent's own owner and mode, and root may use it"
                        .to_owned(),
                ),
            });
        }
        return unexpected("mode, uid and gid");
    }
    if options.required && !matches!(kind, "secret" | "ssh") {
        return unexpected("required");
    }
    if options.env.is_some() && kind != "secret" {
        return unexpected("env");
    }
    match kind {
        "bind" => Ok(MountKind::Bind {
            from: options.from,
            source: options.source,
            target: target(options.target),
            writable: options.read_only == Some(false),
        }),
        "cache" => Ok(MountKind::Cache {
            id: options.id,
            target: target(options.target),
            from: options.from,
            source: options.source,
            sharing: options.sharing.unwrap_or_default(),
            read_only: options.read_only == Some(true),
            owner: options.owner,
        }),
        "tmpfs" => Ok(MountKind::Tmpfs { target: target(options.target), size: options.size }),
        "secret" => {
            if options.from.is_some() {
                return unexpected("from");
            }
            let id = options.id.or(options.source);
            if id.is_none() && options.target.is_none() {
                return Err(invalid("a `secret` mount needs `id=`, the secret's name".to_owned()));
            }
            if options.env.as_deref().is_some_and(|name| name.is_empty() || name.contains(['=', '\0'])) {
                return Err(invalid("`env` of a mount is the name of a variable".to_owned()));
            }
            Ok(MountKind::Secret {
                id,
                target: options.target,
                env: options.env,
                required: options.required,
                owner: options.owner,
            })
        }
        "ssh" => {
            if options.from.is_some() || options.source.is_some() {
                return unexpected("from or source");
            }
            Ok(MountKind::Ssh { id: options.id, target: options.target, required: options.required })
        }
        other => Err(Problem {
            code: "unsupported-mount",
            message: format!("mounts of type `{other}` are not supported"),
            hint: Some("supported types are bind, cache, tmpfs, secret and ssh".to_owned()),
        }),
    }
}

/// Fields between commas; a field in double quotes may hold commas.
fn fields(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            _ => {
                if let Some(field) = fields.last_mut() {
                    field.push(c);
                }
            }
        }
    }
    fields.retain(|field| !field.is_empty());
    fields
}
