//! The classes and functions at the top of a Python file, found by its lines. Nothing is run.

/// A class or function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Definition {
    pub name: String,
    pub is_class: bool,
    /// A class that has, or a function that is, `predict`.
    pub predicts: bool,
}

/// Reads definitions that begin in the first column, outside of triple-quoted strings.
pub(super) fn definitions(source: &str) -> Vec<Definition> {
    let mut found: Vec<Definition> = Vec::new();
    let mut in_class = false;
    let mut quote: Option<&str> = None;
    for line in source.lines() {
        let inside = quote.is_some();
        quote = quote_after(line, quote);
        if inside || line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        if line.starts_with([' ', '\t']) {
            if in_class
                && function_name(line.trim_start()) == Some("predict")
                && let Some(class) = found.last_mut()
            {
                class.predicts = true;
            }
            continue;
        }
        in_class = false;
        if let Some(name) = line.strip_prefix("class ").and_then(identifier) {
            in_class = true;
            found.push(Definition { name: name.to_owned(), is_class: true, predicts: false });
        } else if let Some(name) = function_name(line) {
            found.push(Definition { name: name.to_owned(), is_class: false, predicts: name == "predict" });
        }
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    line.strip_prefix("async ").unwrap_or(line).strip_prefix("def ").and_then(identifier)
}

fn identifier(text: &str) -> Option<&str> {
    let text = text.trim_start();
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    (end > 0).then(|| &text[..end])
}

/// The triple quote that is open after a line.
fn quote_after<'a>(line: &str, mut open: Option<&'a str>) -> Option<&'a str> {
    let mut rest = line;
    loop {
        match open {
            Some(quote) => match rest.find(quote) {
                Some(at) => {
                    rest = &rest[at + 3..];
                    open = None;
                }
                None => return open,
            },
            None => {
                let first = ["\"\"\"", "'''"].into_iter().filter_map(|q| Some((rest.find(q)?, q))).min();
                match first {
                    // What follows a `#` is a comment, unless it is in a string; the rare mistake costs a line.
                    Some((at, quote)) if !rest[..at].contains('#') => {
                        rest = &rest[at + 3..];
                        open = Some(quote);
                    }
                    _ => return None,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_classes_that_predict() {
        let source = r#"
"""A module.

class Fake:
    def predict(self): pass
"""
import x  # '''

class Net(nn.Module):
    '''Has no predict.'''
    def forward(self, x):
        return x

@decorated
class Model:
    # def predict
    def load(self, d): ...
    async def predict(
        self, inputs,
    ):
        pass

def predict(x): return x
def predict_all(x): return x
if True:
    class Hidden:
        def predict(self): ...
"#;
        let shown: Vec<_> =
            definitions(source).into_iter().map(|d| (d.name, d.is_class, d.predicts)).collect();
        let expected = [
            ("Net", true, false),
            ("Model", true, true),
            ("predict", false, true),
            ("predict_all", false, false),
        ];
        assert_eq!(shown, expected.map(|(n, c, p)| (n.to_owned(), c, p)));
    }
}
