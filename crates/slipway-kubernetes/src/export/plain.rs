//! Objects in order for `kubectl apply`: one file each, or one text.

use super::{ExportedFile, file_name, yaml::to_yaml};
use crate::object::Object;

/// One file an object. `kubectl apply -f FOLDER` applies them in the order of their names.
pub fn plain(objects: &[Object]) -> Vec<ExportedFile> {
    objects
        .iter()
        .enumerate()
        .map(|(at, object)| ExportedFile { path: file_name(at, object), text: document(object) })
        .collect()
}

/// All objects in order as one text, for `kubectl apply -f -`.
pub fn stream(objects: &[Object]) -> String {
    objects.iter().map(|object| format!("---\n{}", document(object))).collect()
}

/// An object with a head that says what it is and why it is there.
fn document(object: &Object) -> String {
    let mut text = head(object);
    text.push_str(&to_yaml(object.json()));
    text
}

pub(super) fn head(object: &Object) -> String {
    let mut text = format!("# {} {}\n", object.kind(), object.name());
    let mut line = String::new();
    for word in object.why().split_whitespace() {
        if !line.is_empty() && line.len() + word.len() > 100 {
            text.push_str(&format!("#{line}\n"));
            line.clear();
        }
        line.push(' ');
        line.push_str(word);
    }
    text.push_str(&format!("#{line}\n"));
    text
}
