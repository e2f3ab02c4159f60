//! An S3 client: what the tasks need of an object store. The requests are signed by rusty-s3 and sent by reqwest.

mod upload;

use std::path::Path;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use rusty_s3::actions::{
    AbortMultipartUpload, CompleteMultipartUpload, CreateBucket, CreateMultipartUpload, DeleteObject, GetObject,
    HeadBucket, HeadObject, ListObjectsV2, PutObject, S3Action, UploadPart,
};
use rusty_s3::{Bucket, Credentials, UrlStyle};
use url::Url;

use super::http;

pub use self::upload::{Listed, Part, Payload, Upload};

/// For how long a signature is valid.
const VALIDITY: Duration = Duration::from_secs(600);

/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A client with one key.
#[derive(Clone)]
pub struct S3 {
    endpoint: Url,
    region: String,
    credentials: Credentials,
    http: reqwest::Client,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum S3Error {
    /// The request did not come through.
    #[error("{what}")]
    Transport {
        /// What was tried.
        what: String,
        /// What the transport said.
        source: reqwest::Error,
    },
    /// The server refused.
    #[error("{what}: the server answers {status}: {message}")]
    Refused {
        /// What was tried.
        what: String,
        /// Its answer.
        status: StatusCode,
        /// S3's name of the error, such as `NoSuchKey`; empty where it gives none.
        code: String,
        /// Its words.
        message: String,
    },
    /// The address, the name of a bucket or an answer makes no sense.
    #[error("{what}: {message}")]
    Nonsense {
        /// What was tried.
        what: String,
        /// What is wrong.
        message: String,
    },
}

impl S3Error {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Transport { .. } => true,
            Self::Refused { status: StatusCode::INSUFFICIENT_STORAGE | StatusCode::NOT_IMPLEMENTED, .. } => false,
            Self::Refused { status, .. } => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            Self::Nonsense { .. } => false,
        }
    }

    /// S3's name of the error, such as `NoSuchKey`; empty where there is none.
    pub fn code(&self) -> &str {
        match self {
            Self::Refused { code, .. } => code,
            _ => "",
        }
    }

    /// Whether the store has no room left.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Refused { status: StatusCode::INSUFFICIENT_STORAGE, .. })
    }

    /// Whether the key was refused.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Refused { status: StatusCode::FORBIDDEN, .. })
    }
}

impl S3 {
    /// A client of the server at `endpoint`.
    ///
    /// # Errors
    /// The endpoint is no URL, or the HTTP client cannot be made.
    pub fn new(endpoint: &str, region: &str, id: &str, secret: &str) -> Result<Self, S3Error> {
        Self::trusting(None, endpoint, region, id, secret)
    }

    /// A client that, if `ca` is given, trusts in the authorities with the certificates in this PEM file and no others.
    ///
    /// # Errors
    /// Also: the file cannot be read.
    pub fn trusting(ca: Option<&Path>, endpoint: &str, region: &str, id: &str, secret: &str) -> Result<Self, S3Error> {
        let what = "reach the object store";
        let http = http::client_trusting(endpoint, ca).map_err(|message| nonsense(what, message))?;
        let http = http.timeout(TIMEOUT).build();
        let endpoint = endpoint.parse().map_err(|error: url::ParseError| nonsense(what, error.to_string()))?;
        let http = http.map_err(|source| S3Error::Transport { what: what.to_owned(), source })?;
        Ok(Self { endpoint, region: region.to_owned(), credentials: Credentials::new(id, secret), http })
    }

    fn bucket(&self, name: &str) -> Result<Bucket, S3Error> {
        Bucket::new(self.endpoint.clone(), UrlStyle::Path, name.to_owned(), self.region.clone())
            .map_err(|error| nonsense(&format!("name the bucket {name}"), error.to_string()))
    }

    /// Whether a bucket exists and this key may see it.
    ///
    /// # Errors
    /// The server refuses for another reason than that there is none.
    pub async fn has_bucket(&self, name: &str) -> Result<bool, S3Error> {
        let bucket = self.bucket(name)?;
        let url = HeadBucket::new(&bucket, Some(&self.credentials)).sign(VALIDITY);
        match self.send(Method::HEAD, url, Vec::new(), &format!("look for the bucket {name}")).await {
            Ok(_) => Ok(true),
            Err(S3Error::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes a bucket.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn create_bucket(&self, name: &str) -> Result<(), S3Error> {
        let bucket = self.bucket(name)?;
        let url = CreateBucket::new(&bucket, &self.credentials).sign(VALIDITY);
        self.send(Method::PUT, url, Vec::new(), &format!("make the bucket {name}")).await.map(|_| ())
    }

    /// Writes an object.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn put(&self, bucket: &str, key: &str, body: Vec<u8>) -> Result<(), S3Error> {
        let url = PutObject::new(&self.bucket(bucket)?, Some(&self.credentials), key).sign(VALIDITY);
        self.send(Method::PUT, url, body, &format!("write {bucket}/{key}")).await.map(|_| ())
    }

    /// Writes an object in parts of `size` bytes, at least 5 MiB.
    ///
    /// # Errors
    /// The server refuses; what was sent of it is taken back.
    pub async fn put_in_parts(&self, bucket: &str, key: &str, body: &[u8], size: usize) -> Result<(), S3Error> {
        let what = format!("write {bucket}/{key} in parts");
        let place = self.bucket(bucket)?;
        let url = CreateMultipartUpload::new(&place, Some(&self.credentials), key).sign(VALIDITY);
        let answer = self.send(Method::POST, url, Vec::new(), &what).await?;
        let text = answer.text().await.map_err(|source| S3Error::Transport { what: what.clone(), source })?;
        let upload =
            CreateMultipartUpload::parse_response(&text).map_err(|error| nonsense(&what, error.to_string()))?;
        let id = upload.upload_id();
        match self.send_parts(&place, key, id, body, size, &what).await {
            Ok(()) => Ok(()),
            Err(error) => {
                let url = AbortMultipartUpload::new(&place, Some(&self.credentials), key, id).sign(VALIDITY);
                // The first error is the one to tell.
                let _ = self.send(Method::DELETE, url, Vec::new(), &what).await;
                Err(error)
            }
        }
    }

    async fn send_parts(
        &self,
        place: &Bucket,
        key: &str,
        id: &str,
        body: &[u8],
        size: usize,
        what: &str,
    ) -> Result<(), S3Error> {
        let mut tags = Vec::new();
        for (number, part) in (1..).zip(body.chunks(size)) {
            let url = UploadPart::new(place, Some(&self.credentials), key, number, id).sign(VALIDITY);
            let answer = self.send(Method::PUT, url, part.to_vec(), what).await?;
            let tag = answer.headers().get("etag").and_then(|tag| tag.to_str().ok());
            tags.push(tag.ok_or_else(|| nonsense(what, "a part has no ETag".to_owned()))?.to_owned());
        }
        let complete =
            CompleteMultipartUpload::new(place, Some(&self.credentials), key, id, tags.iter().map(String::as_str));
        let (url, list) = (complete.sign(VALIDITY), complete.body());
        self.send(Method::POST, url, list.into_bytes(), what).await.map(|_| ())
    }

    /// Reads an object.
    ///
    /// # Errors
    /// There is none, or the server refuses.
    pub async fn get(&self, bucket: &str, key: &str) -> Result<Vec<u8>, S3Error> {
        let what = format!("read {bucket}/{key}");
        let url = GetObject::new(&self.bucket(bucket)?, Some(&self.credentials), key).sign(VALIDITY);
        let answer = self.send(Method::GET, url, Vec::new(), &what).await?;
        answer.bytes().await.map(Into::into).map_err(|source| S3Error::Transport { what, source })
    }

    /// Whether an object exists.
    ///
    /// # Errors
    /// The server refuses for another reason than that there is none.
    pub async fn has(&self, bucket: &str, key: &str) -> Result<bool, S3Error> {
        let url = HeadObject::new(&self.bucket(bucket)?, Some(&self.credentials), key).sign(VALIDITY);
        match self.send(Method::HEAD, url, Vec::new(), &format!("look for {bucket}/{key}")).await {
            Ok(_) => Ok(true),
            Err(S3Error::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes an object; that there is none is fine.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn delete(&self, bucket: &str, key: &str) -> Result<(), S3Error> {
        let url = DeleteObject::new(&self.bucket(bucket)?, Some(&self.credentials), key).sign(VALIDITY);
        self.send(Method::DELETE, url, Vec::new(), &format!("delete {bucket}/{key}")).await.map(|_| ())
    }

    /// The keys that begin with `prefix`, at most 1000.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn list(&self, bucket: &str, prefix: &str) -> Result<Vec<String>, S3Error> {
        let what = format!("list {bucket}/{prefix}");
        let place = self.bucket(bucket)?;
        let mut list = ListObjectsV2::new(&place, Some(&self.credentials));
        list.with_prefix(prefix.to_owned());
        let answer = self.send(Method::GET, list.sign(VALIDITY), Vec::new(), &what).await?;
        let text = answer.text().await.map_err(|source| S3Error::Transport { what: what.clone(), source })?;
        let listed = ListObjectsV2::parse_response(&text).map_err(|error| nonsense(&what, error.to_string()))?;
        Ok(listed.contents.into_iter().map(|object| object.key.to_string()).collect())
    }

    async fn send(&self, method: Method, url: Url, body: Vec<u8>, what: &str) -> Result<reqwest::Response, S3Error> {
        self.answer(self.http.request(method, url).body(body), what).await
    }

    async fn answer(&self, request: reqwest::RequestBuilder, what: &str) -> Result<reqwest::Response, S3Error> {
        // The URL is signed: an error must not show it.
        let transport =
            |source: reqwest::Error| S3Error::Transport { what: what.to_owned(), source: source.without_url() };
        let answer = request.send().await.map_err(transport)?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let text = answer.text().await.unwrap_or_default();
        let message = element(&text, "Message").unwrap_or("no reason").to_owned();
        let code = element(&text, "Code").unwrap_or_default().to_owned();
        Err(S3Error::Refused { what: what.to_owned(), status, code, message })
    }
}

/// The text of the first element called `name`.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(text, _)| text)
}

fn nonsense(what: &str, message: String) -> S3Error {
    S3Error::Nonsense { what: what.to_owned(), message }
}
