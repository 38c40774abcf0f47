//! A small S3 client that lists a bucket: what a stranger with the keys would see there.
//!
//! It signs with AWS Signature Version 4 and speaks plain HTTP with path-style addresses, as local S3 servers do.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use ring::{digest, hmac};
use ureq::Agent;

use crate::calendar::civil_date;

const REGION: &str = "us-east-1";

/// A bucket and the keys to it.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// Where the S3 server answers, such as `http://127.0.0.1:7070`.
    pub endpoint: String,
    /// The bucket's name.
    pub name: String,
    /// The key's id.
    pub access_key: String,
    /// The key itself.
    pub secret_key: String,
}

/// One object of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its whole key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
}

impl Bucket {
    /// All objects under `prefix`, sorted by key.
    pub fn list(&self, prefix: &str) -> Result<Vec<Object>> {
        let mut objects = Vec::new();
        let mut continuation = None;
        loop {
            let page = self.page(prefix, continuation.as_deref())?;
            objects.extend(page.split("<Contents>").skip(1).filter_map(object));
            continuation = element(&page, "NextContinuationToken").map(unescape);
            if continuation.is_none() {
                return Ok(objects);
            }
        }
    }

    /// Creates the bucket; one that is there and ours is no error.
    pub fn create(&self) -> Result<()> {
        let (status, text) = self.request("PUT", &format!("/{}", self.name), &BTreeMap::new())?;
        match status {
            200 => Ok(()),
            409 if text.contains("BucketAlreadyOwnedByYou") => Ok(()),
            _ => bail!("failed to create bucket {} at {}: HTTP {status} {text}", self.name, self.endpoint),
        }
    }

    fn page(&self, prefix: &str, continuation: Option<&str>) -> Result<String> {
        let mut query = BTreeMap::from([("list-type", "2"), ("prefix", prefix)]);
        query.extend(continuation.map(|token| ("continuation-token", token)));
        let (status, text) = self.request("GET", &format!("/{}", self.name), &query)?;
        if status != 200 {
            bail!("failed to list bucket {} at {}: HTTP {status} {text}", self.name, self.endpoint);
        }
        Ok(text)
    }

    fn request(&self, method: &str, path: &str, query: &BTreeMap<&str, &str>) -> Result<(u16, String)> {
        let query: Vec<String> = query.iter().map(|(key, value)| format!("{key}={}", encode(value))).collect();
        let query = query.join("&");
        let host = self.endpoint.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
        let signed = self.sign(&Signing { method, path, query: &query, host, time: &timestamp(now) });
        let mut url = format!("{}{path}", self.endpoint.trim_end_matches('/'));
        if !query.is_empty() {
            url = format!("{url}?{query}");
        }
        let agent: Agent =
            Agent::config_builder().http_status_as_error(false).proxy(None).timeout_global(Some(LIMIT)).build().into();
        let request = ureq::http::Request::builder().method(method).uri(&url);
        let request = signed.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        let request = request.body(()).with_context(|| format!("failed to write a request to {url}"))?;
        let mut response = agent.run(request).with_context(|| format!("failed to reach {url}"))?;
        let text = response.body_mut().read_to_string().with_context(|| format!("failed to read {url}"))?;
        Ok((response.status().as_u16(), text))
    }

    /// The headers that prove who asks.
    fn sign(&self, request: &Signing<'_>) -> Vec<(&'static str, String)> {
        let Signing { method, path, query, host, time } = request;
        let empty = hex(digest::digest(&digest::SHA256, b"").as_ref());
        let names = "host;x-amz-content-sha256;x-amz-date";
        let canonical = format!(
            "{method}\n{path}\n{query}\nhost:{host}\nx-amz-content-sha256:{empty}\nx-amz-date:{time}\n\n{names}\n{empty}"
        );
        let day = &time[..8];
        let scope = format!("{day}/{REGION}/s3/aws4_request");
        let hash = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
        let key = [day, REGION, "s3", "aws4_request"]
            .iter()
            .fold(format!("AWS4{}", self.secret_key).into_bytes(), |key, part| mac(&key, part));
        let signature = hex(&mac(&key, &format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{hash}")));
        let credential = &self.access_key;
        let proof =
            format!("AWS4-HMAC-SHA256 Credential={credential}/{scope}, SignedHeaders={names}, Signature={signature}");
        vec![("x-amz-content-sha256", empty), ("x-amz-date", (*time).to_owned()), ("authorization", proof)]
    }
}

const LIMIT: Duration = Duration::from_secs(30);

/// What is signed; the body is always empty.
struct Signing<'a> {
    method: &'a str,
    path: &'a str,
    query: &'a str,
    host: &'a str,
    time: &'a str,
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("writing to a string cannot fail");
        }
        encoded
    })
}

/// `20131231T235959Z`.
fn timestamp(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (year, month, day) = civil_date(i64::try_from(seconds / 86_400).unwrap_or_default());
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

fn object(contents: &str) -> Option<Object> {
    Some(Object { key: unescape(element(contents, "Key")?), size: element(contents, "Size")?.parse().ok()? })
}

fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(text, _)| text)
}

fn unescape(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#34;", "\"").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_signature_wants_them() {
        assert_eq!(timestamp(Duration::from_secs(1_369_353_600)), "20130524T000000Z");
        assert_eq!(timestamp(Duration::from_secs(951_782_400)), "20000229T000000Z");
    }

    #[test]
    fn a_listing_is_read_with_its_escapes() {
        let page = "<R><Contents><Key>a&amp;b</Key><Size>7</Size></Contents><Contents><Key>c</Key><Size>0</Size></Contents></R>";
        let objects: Vec<Object> = page.split("<Contents>").skip(1).filter_map(object).collect();
        assert_eq!(objects, [Object { key: "a&b".into(), size: 7 }, Object { key: "c".into(), size: 0 }]);
    }
}
