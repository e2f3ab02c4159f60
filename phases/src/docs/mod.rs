//! The documents of an installation: pages from templates, with its own names, addresses and versions.
//!
//! Every page is checked: its templates name nothing that is not there, its links resolve, and its shell blocks run.

mod check;
mod facts;
pub mod markdown;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, Value};
use serde::Serialize;

pub use check::{BadLink, bad_links, script};
pub use facts::Facts;

/// The templates, by the name of their page, in reading order.
pub const TEMPLATES: &[(&str, &str)] = &[
    ("index", include_str!("../../assets/docs/index.md.j2")),
    ("architecture", include_str!("../../assets/docs/architecture.md.j2")),
    ("tutorial-08-training-to-inference", include_str!("../../assets/docs/tutorial-08-training-to-inference.md.j2")),
    ("model-deployment", include_str!("../../assets/docs/model-deployment.md.j2")),
    ("troubleshooting", include_str!("../../assets/docs/troubleshooting.md.j2")),
];

/// What stands around a page in HTML.
const FRAME: &str = include_str!("../../assets/docs/page.html.j2");

/// A page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its name, without an extension.
    pub name: String,
    /// Its text, in Markdown.
    pub text: String,
}

/// Fills the templates.
///
/// # Errors
/// A template asks for something that `facts` has not.
pub fn render(facts: &impl Serialize) -> Result<Vec<Document>, minijinja::Error> {
    let environment = environment();
    let facts = Value::from(Serde(facts));
    let page = |(name, template): &(&str, &str)| {
        let text = environment.render_named_str(name, template, facts.clone())?;
        Ok(Document { name: (*name).to_owned(), text })
    };
    TEMPLATES.iter().map(page).collect()
}

/// Writes pages into a folder, each as Markdown and as HTML; returns the files of the Markdown.
///
/// # Errors
/// A file cannot be written, with its path.
pub fn write(folder: &Path, documents: &[Document]) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
    fs::create_dir_all(folder).map_err(|error| (folder.to_owned(), error))?;
    let mut files = Vec::new();
    for Document { name, text } in documents {
        let title = text.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or(name);
        let html = minijinja::context! { title, body => Value::from_safe_string(markdown::to_html(text)) };
        let html = environment().render_named_str("page.html", FRAME, html);
        let html = html.map_err(|error| (folder.join(name), io::Error::other(error)))?;
        for (extension, content) in [("md", text), ("html", &html)] {
            let file = folder.join(format!("{name}.{extension}"));
            fs::write(&file, content).map_err(|error| (file.clone(), error))?;
        }
        files.push(folder.join(format!("{name}.md")));
    }
    Ok(files)
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build();
    environment.set_syntax(syntax.expect("these are options, not delimiters"));
    environment
}
