//! Templates that are a part of the program, filled by minijinja.

use minijinja::syntax::{SyntaxConfig, SyntaxConfigBuilder};
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, Value};
use serde::Serialize;

/// Fills a template whose values stand between `{{` and `}}`.
///
/// # Panics
/// The template is wrong or wants a value that is not given; so a test fills each.
pub fn fill(template: &str, values: &impl Serialize) -> String {
    render(&mut SyntaxConfig::builder(), template, values)
}

/// Fills a template whose values stand between `<<` and `>>`: for files that are templates of somebody else too.
///
/// # Panics
/// As [`fill`].
pub fn fill_angled(template: &str, values: &impl Serialize) -> String {
    render(SyntaxConfig::builder().variable_delimiters("<<", ">>"), template, values)
}

fn render(syntax: &mut SyntaxConfigBuilder, template: &str, values: &impl Serialize) -> String {
    let syntax = syntax.trim_blocks(true).keep_trailing_newline(true).build();
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(syntax.expect("the delimiters differ"));
    environment.render_str(template, Value::from(Serde(values))).expect("the template is sound")
}
