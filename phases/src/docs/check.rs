//! Whether what the pages say is true.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::markdown::{Block, Page};

/// How long an address may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A link that leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLink {
    /// The page.
    pub file: PathBuf,
    /// The line.
    pub line: usize,
    /// Where it should lead.
    pub target: String,
    /// What is there instead.
    pub why: String,
}

impl std::fmt::Display for BadLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}: {}", self.file.display(), self.line, self.target, self.why)
    }
}

/// The links of pages that lead nowhere: files and headings that are not there, loopback addresses that do not answer.
/// Addresses elsewhere are only read: a private cloud may have no way out.
pub async fn bad_links(files: &[PathBuf]) -> Vec<BadLink> {
    let client = reqwest::Client::builder().timeout(TIMEOUT).build();
    let mut bad = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let page = Page::parse(&text);
        for link in &page.links {
            let said = match url::Url::parse(&link.target) {
                Ok(url) if is_loopback(&url) => match &client {
                    Ok(client) => answers(client, url).await,
                    Err(error) => Err(error.to_string()),
                },
                Ok(_) => Ok(()),
                Err(url::ParseError::RelativeUrlWithoutBase) => resolves(file, &page, &link.target),
                Err(error) => Err(error.to_string()),
            };
            if let Err(why) = said {
                bad.push(BadLink { file: file.clone(), line: link.line, target: link.target.clone(), why });
            }
        }
    }
    bad
}

fn is_loopback(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// A page that asks for a login is there.
async fn answers(client: &reqwest::Client, url: url::Url) -> Result<(), String> {
    const LOGIN: [u16; 2] = [401, 403];
    match client.get(url).send().await {
        Ok(answer) if answer.status().as_u16() < 400 || LOGIN.contains(&answer.status().as_u16()) => Ok(()),
        Ok(answer) => Err(format!("it answers {}", answer.status())),
        Err(error) => {
            Err(if error.is_timeout() { "no answer in time".to_owned() } else { "nobody answers".to_owned() })
        }
    }
}

fn resolves(file: &Path, page: &Page, target: &str) -> Result<(), String> {
    let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
    let found = match path {
        "" => page.clone(),
        path => {
            let other = file.parent().unwrap_or(Path::new(".")).join(path);
            if other.is_dir() {
                return Ok(());
            }
            Page::parse(&std::fs::read_to_string(&other).map_err(|_| format!("there is no {}", other.display()))?)
        }
    };
    match anchor {
        Some(anchor) if !found.anchors.iter().any(|known| known == anchor) => {
            Err("there is no such heading".to_owned())
        }
        _ => Ok(()),
    }
}

/// The shell blocks of a page as one script: a variable of one is known to the next, and the first that fails ends it and
/// says where it stands.
pub fn script(file: &Path, blocks: &[Block]) -> String {
    let mut script = String::from("set -euo pipefail\n");
    for Block { line, text } in blocks {
        let place = format!("{}:{line}", file.display()).replace('\'', "");
        script.push_str(&format!("trap 'echo \"failed: {place}\" >&2' ERR\necho '== {place}' >&2\n{text}\n"));
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn links_that_lead_nowhere_are_told_with_their_place() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one.md"), folder.path().join("two.md"));
        let text = "# One\n[a](two.md#two) [b](#one) [c](https://example.invalid/)\n[d](three.md)\n[e](two.md#four)\n\
                    [f](http://127.0.0.1:1/)\n";
        std::fs::write(&one, text).unwrap();
        std::fs::write(&two, "# Two\n").unwrap();
        let bad = bad_links(&[one, two]).await;
        let told: Vec<(usize, &str)> = bad.iter().map(|bad| (bad.line, &*bad.target)).collect();
        assert_eq!(told, [(3, "three.md"), (4, "two.md#four"), (5, "http://127.0.0.1:1/")]);
    }

    #[test]
    fn the_place_of_a_block_that_fails_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let text = "```sh\nx=1\n```\n\n```sh\ntest $x = 1\ntest $x = 2\n```\n";
        let script = script(Path::new("page.md"), &Page::parse(text).blocks);
        let ran = std::process::Command::new("bash").args(["-c", &script]).current_dir(folder.path()).output().unwrap();
        assert!(!ran.status.success());
        assert!(String::from_utf8_lossy(&ran.stderr).ends_with("failed: page.md:6\n"), "{ran:?}");
    }
}
