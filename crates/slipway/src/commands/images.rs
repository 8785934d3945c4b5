//! `slipway images`

use slipway_types::Reference;
use slipway_types::image::ImageSummary;
use slipway_types::size::human_bytes;

use super::Context;
use crate::failure::Failure;
use crate::printer::{Format, age};

/// List images
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print only ids
    #[arg(short, long)]
    quiet: bool,
    /// How to write the list
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Lists.
pub fn run(context: &Context, args: &Args) -> Result<u8, Failure> {
    let list: Vec<ImageSummary> = context.client()?.get("/v1/images")?;
    let printer = context.printer;
    if args.quiet {
        list.iter().for_each(|image| printer.line(image.id.short()));
    } else if args.format == Format::Json {
        printer.json(&list);
    } else {
        let rows: Vec<Vec<String>> = list.iter().flat_map(rows).collect();
        printer.table(&["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"], &rows);
    }
    Ok(0)
}

/// One row a name; one without a name for an image that has none.
fn rows(image: &ImageSummary) -> Vec<Vec<String>> {
    let now = jiff::Timestamp::now();
    let created = image.created.map_or_else(|| "unknown".to_owned(), |c| format!("{} ago", age(c, now)));
    let row = |repository: String, tag: String| {
        vec![repository, tag, image.id.short().to_owned(), created.clone(), human_bytes(image.size)]
    };
    if image.names.is_empty() {
        return vec![row("<none>".to_owned(), "<none>".to_owned())];
    }
    image
        .names
        .iter()
        .map(|name| {
            let familiar = name.parse::<Reference>().map_or_else(|_| name.clone(), |r| r.familiar());
            match familiar.rsplit_once(':') {
                Some((repository, tag)) if !tag.contains('/') => row(repository.to_owned(), tag.to_owned()),
                _ => row(familiar, "<none>".to_owned()),
            }
        })
        .collect()
}
