//! Large transfers: uploads in parts that can be taken up again, with checksums that the server checks.
//!
//! Whole objects are sent with their SHA-256, parts with their CRC-32C: the server refuses bytes that do not fit.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::{Body, Method, StatusCode};
use rusty_s3::actions::{
    AbortMultipartUpload, CompleteMultipartUpload, CreateMultipartUpload, GetObject, ListObjectsV2, ListParts,
    PutObject, S3Action, UploadPart,
};

use super::{S3, S3Error, VALIDITY, nonsense};

/// Bytes to be sent.
pub struct Payload {
    /// The bytes.
    pub body: Body,
    /// How many there are.
    pub length: u64,
    /// How long sending them may take.
    pub patience: Duration,
}

/// An upload in parts that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// The bucket.
    pub bucket: String,
    /// The object's key.
    pub key: String,
    /// The server's name of the upload.
    pub id: String,
}

/// A part that the server has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its number, from 1.
    pub number: u16,
    /// Its size in bytes.
    pub size: u64,
    /// Its entity tag, without quotes: the MD5 of its bytes.
    pub etag: String,
}

/// An object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its size in bytes.
    pub size: u64,
    /// Its entity tag, without quotes.
    pub etag: String,
}

impl S3 {
    /// Writes an object that has this SHA-256, and returns its entity tag.
    ///
    /// # Errors
    /// The server refuses, for instance because the bytes do not have it.
    pub async fn put_checked(
        &self,
        bucket: &str,
        key: &str,
        payload: Payload,
        sha256: &[u8; 32],
    ) -> Result<String, S3Error> {
        let what = format!("write {bucket}/{key}");
        let (place, sum) = (self.bucket(bucket)?, BASE64.encode(sha256));
        let mut action = PutObject::new(&place, Some(&self.credentials), key);
        action.headers_mut().insert("x-amz-checksum-sha256", &sum);
        let request = self.payload(Method::PUT, action.sign(VALIDITY), payload);
        etag(&self.answer(request.header("x-amz-checksum-sha256", &sum), &what).await?, &what)
    }

    /// Begins an upload in parts.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn begin_upload(&self, bucket: &str, key: &str) -> Result<Upload, S3Error> {
        let what = format!("begin to write {bucket}/{key}");
        let place = self.bucket(bucket)?;
        let mut action = CreateMultipartUpload::new(&place, Some(&self.credentials), key);
        action.headers_mut().insert("x-amz-checksum-algorithm", "CRC32C");
        let request = self.http.post(action.sign(VALIDITY)).header("x-amz-checksum-algorithm", "CRC32C");
        let text = self.text(self.answer(request, &what).await?, &what).await?;
        let begun = CreateMultipartUpload::parse_response(&text).map_err(|error| nonsense(&what, error.to_string()))?;
        Ok(Upload { bucket: bucket.to_owned(), key: key.to_owned(), id: begun.upload_id().to_owned() })
    }

    /// Sends a part that has this CRC-32C: at least 5 MiB unless it is the last one.
    ///
    /// # Errors
    /// The server refuses, for instance because the bytes do not have it, or the upload is no more.
    pub async fn put_part(&self, upload: &Upload, number: u16, payload: Payload, crc32c: u32) -> Result<Part, S3Error> {
        let Upload { bucket, key, id } = upload;
        let what = format!("write part {number} of {bucket}/{key}");
        let (place, sum, size) = (self.bucket(bucket)?, crc_text(crc32c), payload.length);
        let mut action = UploadPart::new(&place, Some(&self.credentials), key, number, id);
        action.headers_mut().insert("x-amz-checksum-crc32c", &sum);
        let request = self.payload(Method::PUT, action.sign(VALIDITY), payload);
        let answer = self.answer(request.header("x-amz-checksum-crc32c", &sum), &what).await?;
        Ok(Part { number, size, etag: etag(&answer, &what)? })
    }

    /// The parts that the server has of an upload; nothing if there is no such upload any more.
    ///
    /// # Errors
    /// The server refuses for another reason.
    pub async fn parts(&self, upload: &Upload) -> Result<Option<Vec<Part>>, S3Error> {
        let Upload { bucket, key, id } = upload;
        let what = format!("list the parts of {bucket}/{key}");
        let place = self.bucket(bucket)?;
        let mut parts = Vec::new();
        let mut marker = None;
        loop {
            let mut action = ListParts::new(&place, Some(&self.credentials), key, id);
            if let Some(marker) = marker {
                action.set_part_number_marker(marker);
            }
            let answer = match self.send(Method::GET, action.sign(VALIDITY), Vec::new(), &what).await {
                Err(S3Error::Refused { status: StatusCode::NOT_FOUND, .. }) => return Ok(None),
                other => other?,
            };
            let text = self.text(answer, &what).await?;
            let listed = ListParts::parse_response(&text).map_err(|error| nonsense(&what, error.to_string()))?;
            parts.extend(listed.parts.into_iter().map(|part| Part {
                number: part.number,
                size: part.size,
                etag: unquoted(&part.etag),
            }));
            match listed.next_part_number_marker {
                Some(next) if marker.is_none_or(|last| next > last) => marker = Some(next),
                _ => return Ok(Some(parts)),
            }
        }
    }

    /// Makes the object of its parts, each with its CRC-32C, and returns the object's entity tag.
    ///
    /// # Errors
    /// The server refuses, for instance because it has not these parts.
    pub async fn complete_upload(&self, upload: &Upload, parts: &[(Part, u32)]) -> Result<String, S3Error> {
        let Upload { bucket, key, id } = upload;
        let what = format!("finish {bucket}/{key}");
        let place = self.bucket(bucket)?;
        let action = CompleteMultipartUpload::new(&place, Some(&self.credentials), key, id, std::iter::empty::<&str>());
        // The server may think for minutes about a large object.
        let request = self.http.post(action.sign(VALIDITY)).timeout(Duration::from_secs(600)).body(part_list(parts));
        let text = self.text(self.answer(request, &what).await?, &what).await?;
        // A failure may come after the status.
        if let Some(code) = super::element(&text, "Code") {
            let message = super::element(&text, "Message").unwrap_or("no reason").to_owned();
            return Err(S3Error::Refused {
                what,
                status: StatusCode::INTERNAL_SERVER_ERROR,
                code: code.to_owned(),
                message,
            });
        }
        let tag = super::element(&text, "ETag").ok_or_else(|| nonsense(&what, "the answer has no ETag".to_owned()))?;
        Ok(unquoted(tag))
    }

    /// Gives an upload up; that there is none is fine.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn abort_upload(&self, upload: &Upload) -> Result<(), S3Error> {
        let Upload { bucket, key, id } = upload;
        let place = self.bucket(bucket)?;
        let url = AbortMultipartUpload::new(&place, Some(&self.credentials), key, id).sign(VALIDITY);
        match self.send(Method::DELETE, url, Vec::new(), &format!("give up writing {bucket}/{key}")).await {
            Ok(_) | Err(S3Error::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// All objects whose keys begin with `prefix`, by key.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn list_all(&self, bucket: &str, prefix: &str) -> Result<BTreeMap<String, Listed>, S3Error> {
        let what = format!("list {bucket}/{prefix}");
        let place = self.bucket(bucket)?;
        let mut objects = BTreeMap::new();
        let mut token: Option<String> = None;
        loop {
            let mut action = ListObjectsV2::new(&place, Some(&self.credentials));
            action.with_prefix(prefix.to_owned());
            if let Some(token) = token.take() {
                action.with_continuation_token(token);
            }
            let answer = self.send(Method::GET, action.sign(VALIDITY), Vec::new(), &what).await?;
            let text = self.text(answer, &what).await?;
            let listed = ListObjectsV2::parse_response(&text).map_err(|error| nonsense(&what, error.to_string()))?;
            let known = objects.len();
            objects.extend(listed.contents.into_iter().map(|object| {
                let etag = unquoted(&object.etag.unwrap_or_default());
                (object.key, Listed { size: object.size.unwrap_or_default(), etag })
            }));
            match listed.next_continuation_token {
                // A page that brings nothing new would be followed by itself for ever.
                Some(next) if objects.len() > known => token = Some(next),
                _ => return Ok(objects),
            }
        }
    }

    /// Reads an object piece by piece.
    ///
    /// # Errors
    /// There is none, or the server refuses.
    pub async fn open(&self, bucket: &str, key: &str, patience: Duration) -> Result<reqwest::Response, S3Error> {
        let url = GetObject::new(&self.bucket(bucket)?, Some(&self.credentials), key).sign(VALIDITY);
        self.answer(self.http.get(url).timeout(patience), &format!("read {bucket}/{key}")).await
    }

    fn payload(&self, method: Method, url: url::Url, payload: Payload) -> reqwest::RequestBuilder {
        let Payload { body, length, patience } = payload;
        // S3 takes no body whose length it does not know.
        self.http.request(method, url).header(reqwest::header::CONTENT_LENGTH, length).timeout(patience).body(body)
    }

    async fn text(&self, answer: reqwest::Response, what: &str) -> Result<String, S3Error> {
        let transport =
            |source: reqwest::Error| S3Error::Transport { what: what.to_owned(), source: source.without_url() };
        answer.text().await.map_err(transport)
    }
}

/// The body that names the parts of an object.
fn part_list(parts: &[(Part, u32)]) -> String {
    let parts = parts.iter().map(|(part, crc32c)| {
        let (number, etag, sum) = (part.number, &part.etag, crc_text(*crc32c));
        format!("<Part><PartNumber>{number}</PartNumber><ETag>\"{etag}\"</ETag><ChecksumCRC32C>{sum}</ChecksumCRC32C></Part>")
    });
    format!("<CompleteMultipartUpload>{}</CompleteMultipartUpload>", parts.collect::<String>())
}

fn crc_text(crc32c: u32) -> String {
    BASE64.encode(crc32c.to_be_bytes())
}

fn etag(answer: &reqwest::Response, what: &str) -> Result<String, S3Error> {
    let tag = answer.headers().get(reqwest::header::ETAG).and_then(|tag| tag.to_str().ok());
    tag.map(unquoted).ok_or_else(|| nonsense(what, "the answer has no ETag".to_owned()))
}

fn unquoted(etag: &str) -> String {
    etag.replace("&quot;", "").replace("&#34;", "").replace('"', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_named_with_their_checksums() {
        let part = Part { number: 7, size: 1, etag: "ab".to_owned() };
        // The check value of CRC-32C, that of `123456789`.
        let told = part_list(&[(part, 0xe306_9283)]);
        let expected = "<CompleteMultipartUpload><Part><PartNumber>7</PartNumber><ETag>\"ab\"</ETag>\
                        <ChecksumCRC32C>4waSgw==</ChecksumCRC32C></Part></CompleteMultipartUpload>";
        assert_eq!(told, expected);
    }

    #[test]
    fn entity_tags_lose_their_quotes() {
        for told in ["\"ab-2\"", "&quot;ab-2&quot;", "&#34;ab-2&#34;", "ab-2"] {
            assert_eq!(unquoted(told), "ab-2");
        }
    }
}
