//! Platforms as Docker writes them: `os/architecture[/variant]`.

use std::fmt;

/// A platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Platform {
    pub(crate) os: String,
    pub(crate) architecture: String,
    pub(crate) variant: Option<String>,
}

impl Platform {
    /// What this program runs on, in Go's names.
    pub(crate) fn host() -> Self {
        let (architecture, variant) = normalise(std::env::consts::ARCH, None);
        Self { os: "linux".to_owned(), architecture, variant }
    }

    /// Reads `os/architecture[/variant]`, or an architecture alone, which means Linux.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let valid = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        if !parts.iter().all(valid) {
            return None;
        }
        let (os, architecture, variant) = match parts[..] {
            [architecture] if is_architecture(architecture) => ("linux", architecture, None),
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => return None,
        };
        let (architecture, variant) = normalise(&architecture.to_ascii_lowercase(), variant);
        Some(Self { os: os.to_ascii_lowercase(), architecture, variant })
    }

    /// Whether an image for `image` is one for this platform. Images that do not say are.
    pub(crate) fn accepts(&self, image: &Self) -> bool {
        (image.os.is_empty() || image.os == self.os)
            && (image.architecture.is_empty() || image.architecture == self.architecture)
            && (self.variant.is_none() || image.variant.is_none() || image.variant == self.variant)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
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
            assert_eq!(Platform::parse(text).unwrap().to_string(), shown);
        }
        for bad in ["", "linux", "linux/", "a/b/c/d", "linux/amd 64"] {
            assert!(Platform::parse(bad).is_none(), "{bad}");
        }
        let amd = Platform::parse("linux/amd64").unwrap();
        assert!(amd.accepts(&Platform { os: String::new(), architecture: String::new(), variant: None }));
        assert!(!amd.accepts(&Platform::parse("linux/arm64").unwrap()));
    }
}
