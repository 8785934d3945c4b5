//! `slipway import kubernetes`

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use slipway_kubernetes::import::{
    Analysis, Finding, Imported, LeftOut, MAX_FILE, Severity, analyze, convert,
};
use slipway_types::build::{self, Diagnostic, Span};
use slipway_types::{ApiError, ErrorCode, name};

use super::super::Context;
use crate::failure::{self, Failure, exit};
use crate::mapped;
use crate::owned_folder;
use crate::printer::Format;
use crate::progress;
use crate::project_file::FILE_NAME;

/// Check Kubernetes manifests line by line, and make a project of them; exit 1 if something in them cannot work
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write a project file for each Deployment: into this folder, or into one below it for each where there are several
    #[arg(short, long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// Replace a project file that is there
    #[arg(long, requires = "output")]
    force: bool,
    /// How to write findings
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// The manifests; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Checks and converts.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let (name, text) = read(&args.file)?;
    let analysis = analyze(&text);
    let (projects, others) = convert(&analysis.documents);
    if args.format == Format::Json {
        context.printer.json(&as_json(&analysis, &projects, &others));
    } else {
        for finding in &analysis.findings {
            let diagnostic = diagnostic(finding, &text);
            let shown = progress::render(&diagnostic, &name, &text, context.printer.colour_out());
            context.printer.line(shown.trim_end());
        }
        context.printer.note(summary(&analysis));
    }
    if analysis.has_errors() {
        return Ok(exit::FAILED);
    }
    if let Some(folder) = &args.output {
        write(context, args, folder, &projects, &others)?;
    }
    Ok(0)
}

fn read(file: &Path) -> Result<(String, String), Failure> {
    // One byte more than is read, so that what is too long is told and not cut.
    let limit = MAX_FILE as u64 + 1;
    let mut bytes = Vec::new();
    let name = if file == Path::new("-") {
        let input = Path::new("standard input");
        std::io::stdin()
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(|e| failure::io("read the manifests from", input, &e))?;
        input
    } else {
        let opened = std::fs::File::open(file).map_err(|e| failure::io("open", file, &e))?;
        opened.take(limit).read_to_end(&mut bytes).map_err(|e| failure::io("read", file, &e))?;
        file
    };
    let name = name.display().to_string();
    match String::from_utf8(bytes) {
        Ok(text) => Ok((name, text)),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
            Err(Failure::usage(format!("{name}:{line}: this is no text in UTF-8")))
        }
    }
}

/// A finding with the place in the file that it points to: the rest of its line's word.
fn diagnostic(finding: &Finding, text: &str) -> Diagnostic {
    let mut start = 0;
    for line in text.split_inclusive('\n').take(finding.line.saturating_sub(1)) {
        start += line.len();
    }
    let line = text.get(start..).unwrap_or("").lines().next().unwrap_or("");
    let column: usize = line.chars().take(finding.column.saturating_sub(1)).map(char::len_utf8).sum();
    let rest = line.get(column..).unwrap_or("");
    let word = rest.find([' ', '\t', ',', '}', ']']).unwrap_or(rest.len());
    let start = start + column;
    Diagnostic {
        severity: match finding.severity {
            Severity::Error => build::Severity::Error,
            Severity::Warning => build::Severity::Warning,
        },
        code: finding.code.to_owned(),
        message: finding.message.clone(),
        hint: Some(finding.fix.clone()).filter(|fix| !fix.is_empty()),
        span: Span { start, end: start + word },
        line: finding.line.try_into().unwrap_or(u32::MAX),
        column: finding.column.try_into().unwrap_or(u32::MAX),
    }
}

fn summary(analysis: &Analysis) -> String {
    let errors = analysis.findings.iter().filter(|f| f.severity == Severity::Error).count();
    let warnings = analysis.findings.len() - errors;
    let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    format!(
        "{}: {}, {}",
        count(analysis.documents.len(), "document"),
        count(errors, "error"),
        count(warnings, "warning")
    )
}

fn as_json(analysis: &Analysis, projects: &[Imported], others: &[LeftOut]) -> Value {
    let left = |items: &[LeftOut]| -> Value {
        items.iter().map(|l| json!({"line": l.line, "what": l.what, "why": l.why})).collect()
    };
    let findings: Vec<Value> = analysis
        .findings
        .iter()
        .map(|f| {
            let severity = if f.severity == Severity::Error { "error" } else { "warning" };
            json!({
                "line": f.line, "column": f.column, "severity": severity, "code": f.code,
                "message": f.message, "fix": f.fix,
            })
        })
        .collect();
    let projects: Vec<Value> = projects
        .iter()
        .map(|p| {
            json!({
                "name": p.project.name, "toml": p.toml(), "image": p.image, "port": p.port,
                "exposure": p.exposure, "left_out": left(&p.left_out),
            })
        })
        .collect();
    json!({ "findings": findings, "projects": projects, "left_out": left(others) })
}

fn write(
    context: &Context,
    args: &Args,
    folder: &Path,
    projects: &[Imported],
    others: &[LeftOut],
) -> Result<(), Failure> {
    if projects.is_empty() {
        return Err(Failure::usage(
            "there is no Deployment in the manifests, so there is no project to write",
        ));
    }
    let mut files = Vec::new();
    for imported in projects {
        let project = &imported.project.name;
        if !name::is_valid(project) {
            return Err(Failure::usage(format!(
                "`{project}` cannot be the name of a project: {}",
                name::RULE
            )));
        }
        let place =
            if projects.len() == 1 { folder.to_owned() } else { folder.join(&*mapped::file_name(project)) };
        let path = place.join(FILE_NAME);
        // A name may come twice, in two namespaces.
        if files.iter().any(|(known, _)| *known == path) || (!args.force && path.symlink_metadata().is_ok()) {
            return Err(Failure::from(ApiError::new(
                ErrorCode::Conflict,
                format!("{} is there already", path.display()),
            ))
            .hint("choose another folder, or replace it with `--force`"));
        }
        files.push((path, imported));
    }
    for (path, imported) in files {
        let parent = path.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent).map_err(|e| failure::io("create the folder", parent, &e))?;
        owned_folder::write(&path, imported.toml().as_bytes())?;
        if args.format == Format::Table {
            context.printer.line(path.display().to_string());
            tell(context, imported);
        }
    }
    for left in others.iter().filter(|_| args.format == Format::Table) {
        context.printer.note(format!("left out: line {}: {}: {}", left.line, left.what, left.why));
    }
    Ok(())
}

/// What a project file does not hold.
fn tell(context: &Context, imported: &Imported) {
    let printer = context.printer;
    for left in &imported.left_out {
        printer.note(format!("left out: line {}: {}: {}", left.line, left.what, left.why));
    }
    if let Some(image) = &imported.image {
        printer.note(format!(
            "it ran {image}: begin the Dockerfile with `FROM {image}`, or serve a model in it with `slipway deploy --image`"
        ));
    }
}
