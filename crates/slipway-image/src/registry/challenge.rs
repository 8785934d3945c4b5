//! `WWW-Authenticate`: how a registry says which credentials it wants (RFC 9110, section 11).

/// One way in that a 401 offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User name and password with every request.
    Basic,
    /// A token that `realm` gives out.
    Bearer { realm: String, service: Option<String>, scopes: Vec<String> },
}

/// The most characters of the header that are looked at.
const MAX_HEADER: usize = 8 << 10;

/// Reads the challenges of one header, which may hold several. Unknown schemes are left out.
pub(crate) fn read_challenges(header: &str) -> Vec<Challenge> {
    let header = match header.char_indices().nth(MAX_HEADER) {
        Some((end, _)) => &header[..end],
        None => header,
    };
    let mut found = Vec::new();
    let mut current: Option<(String, Vec<(String, String)>)> = None;
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        if end == 0 {
            // A stray `=`, or the end.
            match rest.chars().next() {
                Some(c) => rest = &rest[c.len_utf8()..],
                None => break,
            }
            continue;
        }
        let (word, after) = rest.split_at(end);
        let after_blank = after.trim_start_matches([' ', '\t']);
        if let Some(value) = after_blank.strip_prefix('=').filter(|_| current.is_some()) {
            let (value, remaining) = read_value(value.trim_start_matches([' ', '\t']));
            if let Some((_, parameters)) = &mut current {
                parameters.push((word.to_ascii_lowercase(), value));
            }
            rest = remaining;
        } else {
            found.extend(current.take().and_then(finish));
            current = Some((word.to_ascii_lowercase(), Vec::new()));
            rest = after;
        }
    }
    found.extend(current.and_then(finish));
    found
}

/// A token or a quoted string, and what follows it.
fn read_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[i + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

fn finish((scheme, parameters): (String, Vec<(String, String)>)) -> Option<Challenge> {
    match scheme.as_str() {
        "basic" => Some(Challenge::Basic),
        "bearer" => {
            let get = |name: &str| parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
            let scopes =
                get("scope").map(|s| s.split(' ').filter(|s| !s.is_empty()).map(str::to_owned).collect());
            Some(Challenge::Bearer {
                realm: get("realm")?,
                service: get("service"),
                scopes: scopes.unwrap_or_default(),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bearer(realm: &str, service: Option<&str>, scopes: &[&str]) -> Challenge {
        Challenge::Bearer {
            realm: realm.into(),
            service: service.map(Into::into),
            scopes: scopes.iter().map(|s| (*s).to_owned()).collect(),
        }
    }

    #[test]
    fn reads_what_registries_send() {
        for (header, challenges) in [
            (r#"Basic realm="basic-realm""#, vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                vec![bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    &["repository:a/b:pull,push"],
                )],
            ),
            (
                r#"Bearer realm="https://x/t", scope="a:b:pull c:d:pull", error="insufficient_scope""#,
                vec![bearer("https://x/t", None, &["a:b:pull", "c:d:pull"])],
            ),
            (
                r#"Negotiate, Basic realm="a, b=c", bearer realm=https://x/t"#,
                vec![Challenge::Basic, bearer("https://x/t", None, &[])],
            ),
            (r#"Bearer realm = "https://x/\"t""#, vec![bearer(r#"https://x/"t"#, None, &[])]),
            (r#"Bearer service="no realm""#, vec![]),
            ("", vec![]),
            ("=,=", vec![]),
        ] {
            assert_eq!(read_challenges(header), challenges, "{header}");
        }
    }

    proptest! {
        #[test]
        fn ends_on_any_header(header in "\\PC{0,200}", mix in "[a-zA-Z=, \"\\\\]{0,80}") {
            read_challenges(&header);
            read_challenges(&mix);
        }

        #[test]
        fn quoted_values_survive(realm in "[ -~]{1,60}") {
            let quoted = realm.replace('\\', "\\\\").replace('"', "\\\"");
            prop_assert_eq!(
                read_challenges(&format!("Bearer realm=\"{quoted}\",service=x")),
                vec![bearer(&realm, Some("x"), &[])]
            );
        }
    }
}
