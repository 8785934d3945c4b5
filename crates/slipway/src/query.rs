//! Query strings of API paths.

pub use slipway_types::name::segment;

/// A path with a query of these pairs, percent-encoded.
pub fn path(base: &str, pairs: &[(&str, &str)]) -> String {
    let mut text = base.to_owned();
    for (index, (key, value)) in pairs.iter().enumerate() {
        text.push(if index == 0 { '?' } else { '&' });
        text.push_str(key);
        text.push('=');
        text.push_str(&segment(value));
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn encodes_what_a_reference_holds() {
        assert_eq!(super::path("/v1/image", &[("name", "a/b:c@d&e")]), "/v1/image?name=a%2Fb%3Ac%40d%26e");
        assert_eq!(super::path("/x", &[]), "/x");
    }
}
