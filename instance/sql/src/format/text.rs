//! Rows as lines of text.

use serde_json::Value as Json;

/// `{"a":1,"b":"x"}` and the line's end. The names are JSON strings already.
pub(super) fn json_line(bytes: &mut Vec<u8>, names: &[String], cells: &[Json]) {
    bytes.push(b'{');
    for (at, (name, cell)) in names.iter().zip(cells).enumerate() {
        if at > 0 {
            bytes.push(b',');
        }
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(b':');
        serde_json::to_writer(&mut *bytes, cell).expect("memory takes every value");
    }
    bytes.extend_from_slice(b"}\n");
}

/// The header.
pub(super) fn csv_head<'a>(names: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (at, name) in names.enumerate() {
        if at > 0 {
            bytes.push(b',');
        }
        csv_text(&mut bytes, name);
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// NULL is an empty field, an empty text a quoted one; what JSON has as an array or object is its JSON text.
pub(super) fn csv_line(bytes: &mut Vec<u8>, _: &[String], cells: &[Json]) {
    for (at, cell) in cells.iter().enumerate() {
        if at > 0 {
            bytes.push(b',');
        }
        match cell {
            Json::Null => {}
            Json::String(text) => csv_text(bytes, text),
            Json::Bool(_) | Json::Number(_) => bytes.extend_from_slice(cell.to_string().as_bytes()),
            Json::Array(_) | Json::Object(_) => csv_text(bytes, &cell.to_string()),
        }
    }
    bytes.extend_from_slice(b"\r\n");
}

fn csv_text(bytes: &mut Vec<u8>, text: &str) {
    let is_plain = !text.is_empty() && !text.contains(['"', ',', '\r', '\n']);
    if is_plain {
        bytes.extend_from_slice(text.as_bytes());
        return;
    }
    bytes.push(b'"');
    bytes.extend_from_slice(text.replace('"', "\"\"").as_bytes());
    bytes.push(b'"');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cells_are_lines_of_json_and_of_csv() {
        let cells = [json!(1), json!("a,\"b\"\n"), Json::Null, json!(""), json!([1, 2]), json!(true)];
        let mut bytes = csv_head(["n", "t x", "z", "e", "l", "ü,"].into_iter());
        csv_line(&mut bytes, &[], &cells);
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text, "n,t x,z,e,l,\"ü,\"\r\n1,\"a,\"\"b\"\"\n\",,\"\",\"[1,2]\",true\r\n");

        let mut bytes = Vec::new();
        let names = ["n", "t\"", "z"].map(|name| Json::from(name).to_string());
        json_line(&mut bytes, &names, &cells[..3]);
        assert_eq!(String::from_utf8(bytes).unwrap(), "{\"n\":1,\"t\\\"\":\"a,\\\"b\\\"\\n\",\"z\":null}\n");
    }
}
