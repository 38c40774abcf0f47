//! Messages of instances and object stores, and which of them say the same.
//!
//! An object store puts a new request id and the time that it took into each of its errors, and an instance tells of the
//! object that it tried last. A status that followed them would be written anew at every look, for as long as the store
//! fails.

/// XML elements of S3's errors whose content differs from request to request.
const CHANGING_ELEMENTS: [&str; 3] = ["RequestId", "RequestID", "HostId"];

/// The least length of a word that is taken for an id.
const ID_LENGTH: usize = 12;

/// Whether two messages differ in nothing but ids of requests, lengths of time, and the object that was tried.
pub fn says_the_same(before: &str, after: &str) -> bool {
    before == after || without_changing_parts(before) == without_changing_parts(after)
}

fn without_changing_parts(text: &str) -> String {
    let text = CHANGING_ELEMENTS.iter().fold(text.to_owned(), |text, element| without_content(&text, element));
    let words: Vec<&str> = text.split_whitespace().collect();
    // What was done to an object stands before its name, as in `GET http://…` and `failed to read identity.json`.
    let is_of_an_object = |index: usize| words[index..].iter().take(2).any(|word| names_an_object(word));
    let steady =
        |(index, word): (usize, &&str)| if is_of_an_object(index) { "#".to_owned() } else { without_ids(word) };
    words.iter().enumerate().map(steady).collect::<Vec<_>>().join(" ")
}

/// A URL, a path, or one of the files that a database has in its store.
fn names_an_object(word: &str) -> bool {
    let bare = word.trim_matches(|character: char| !character.is_alphanumeric());
    bare.contains('/') || [".json", ".parquet", ".bin"].iter().any(|ending| bare.ends_with(ending))
}

fn without_ids(word: &str) -> String {
    let mut steady = String::with_capacity(word.len());
    for part in word.split_inclusive(|character: char| !is_part_of_word(character)) {
        // A full stop at the end belongs to the sentence.
        let word = part.trim_end_matches(|character: char| !is_part_of_word(character) || character == '.');
        match is_uuid(word) || is_time(word) {
            true => steady.push('#'),
            false => steady.push_str(&word.split('-').map(masked).collect::<Vec<_>>().join("-")),
        }
        steady.push_str(&part[word.len()..]);
    }
    steady
}

/// The text with what stands between the tags of `element` taken out.
fn without_content(text: &str, element: &str) -> String {
    let (begin, end) = (format!("<{element}>"), format!("</{element}>"));
    let mut rest = text;
    let mut kept = String::with_capacity(text.len());
    while let Some((before, content)) = rest.split_once(&begin) {
        kept.push_str(before);
        rest = content.split_once(&end).map_or("", |(_, after)| after);
    }
    kept.push_str(rest);
    kept
}

fn is_part_of_word(character: char) -> bool {
    character.is_alphanumeric() || character == '-' || character == '.'
}

fn masked(word: &str) -> &str {
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    let is_id = word.len() >= ID_LENGTH && digits >= 2 && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_id { "#" } else { word }
}

fn is_uuid(word: &str) -> bool {
    let lengths = word.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && word.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

/// `12.5ms`, `3s`: how Rust and Go write a time that was measured.
fn is_time(word: &str) -> bool {
    let number = ["ms", "µs", "us", "ns", "s"].iter().find_map(|unit| word.strip_suffix(unit)).unwrap_or("");
    number.starts_with(|first: char| first.is_ascii_digit()) && number.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_times_of_a_failed_request_are_no_difference() {
        for (before, after) in [
            ("failed in 12.5ms, after 3 retries", "failed in 9s, after 3 retries"),
            ("<Code>NoSuchBucket</Code><RequestId>A</RequestId>", "<Code>NoSuchBucket</Code><RequestId>B</RequestId>"),
            ("denied (request 4442587FB7D0A2F9)", "denied (request 9D31AB72C10E55F0)"),
            (
                "failed to read identity.json: Error performing GET http://s3:7070/kalam/identity.json in 4s - refused",
                "failed to write t/0.parquet: Error performing PUT http://s3:7070/kalam/t/0.parquet in 9s - refused",
            ),
            ("id 550e8400-e29b-41d4-a716-446655440000.", "id 650e8400-e29b-41d4-a716-446655440001."),
        ] {
            assert!(says_the_same(before, after), "{before} / {after}");
        }
    }

    #[test]
    fn what_tells_another_story_is_a_difference() {
        for (before, after) in [
            ("HTTP 403 of http://10.0.0.1:7070", "HTTP 404 of http://10.0.0.1:7070"),
            ("failed to read a.json: refused", "failed to read a.json: denied"),
            ("failed to read the Secret a", "failed to create the Secret a"),
            ("the Secret \"chat-s3\" does not exist", "the Secret \"chat-s4\" does not exist"),
            ("no host 10.244.0.17", "no host 10.244.0.18"),
            ("<RequestId>A</RequestId> gone", "<RequestId>A</RequestId> denied"),
        ] {
            assert!(!says_the_same(before, after), "{before} / {after}");
        }
    }
}
