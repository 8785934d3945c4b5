//! Platforms as `FROM --platform=` writes them: `os/architecture[/variant]`, or an architecture alone.

use slipway_types::image::Platform;

/// Reads a platform. Docker's other names of architectures are understood, and variants that every machine of a kind
/// has are left out.
pub(crate) fn parse_platform(text: &str) -> Option<Platform> {
    let lower = text.to_ascii_lowercase();
    let whole = if is_architecture(&lower) { format!("linux/{lower}") } else { lower };
    let platform: Platform = whole.parse().ok()?;
    let (architecture, variant) = normalise(&platform.architecture, platform.variant.as_deref());
    Some(Platform { os: platform.os, architecture, variant })
}

/// Whether an image for `image` fits `wanted`. Images that do not say fit.
pub(crate) fn fits(wanted: &Platform, image: &Platform) -> bool {
    (image.os.is_empty() || image.os == wanted.os)
        && (image.architecture.is_empty() || image.architecture == wanted.architecture)
        && (wanted.variant.is_none() || image.variant.is_none() || image.variant == wanted.variant)
}

fn is_architecture(text: &str) -> bool {
    const KNOWN: [&str; 12] = [
        "amd64", "x86_64", "386", "arm", "armhf", "arm64", "aarch64", "riscv64", "ppc64le", "s390x",
        "mips64le", "loong64",
    ];
    KNOWN.contains(&text)
}

/// Go's names for architectures, without variants that every machine of the kind has.
fn normalise(architecture: &str, variant: Option<&str>) -> (String, Option<String>) {
    let (architecture, variant) = match (architecture, variant) {
        ("x86_64" | "x86-64" | "amd64", Some("v1") | None) => ("amd64", None),
        ("x86" | "i386" | "386", _) => ("386", None),
        ("aarch64" | "arm64", Some("8" | "v8") | None) => ("arm64", None),
        ("armhf", None) | ("arm", Some("7")) => ("arm", Some("v7")),
        ("powerpc64" | "ppc64le", variant) => ("ppc64le", variant),
        ("loongarch64", variant) => ("loong64", variant),
        other => other,
    };
    (architecture.to_owned(), variant.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_compares() {
        for (text, shown) in [
            ("linux/amd64", "linux/amd64"),
            ("x86_64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm/v7", "linux/arm/v7"),
            ("LINUX/AMD64", "linux/amd64"),
        ] {
            assert_eq!(parse_platform(text).unwrap().to_string(), shown);
        }
        for bad in ["", "linux", "linux/", "a/b/c/d", "linux/amd 64"] {
            assert!(parse_platform(bad).is_none(), "{bad}");
        }
        let amd = parse_platform("linux/amd64").unwrap();
        assert!(fits(&amd, &Platform { os: String::new(), architecture: String::new(), variant: None }));
        assert!(!fits(&amd, &parse_platform("linux/arm64").unwrap()));
    }
}
