//! What a Markdown page has that can be checked: shell blocks, links, headings.

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd, html};

/// The languages of blocks that are commands for a shell.
const SHELL: [&str; 3] = ["sh", "bash", "shell"];

/// A shell block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The line of its first command, from 1.
    pub line: usize,
    /// The commands.
    pub text: String,
}

/// A link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its line, from 1.
    pub line: usize,
    /// Where it leads: an address, a path relative to the page, or `#` and a heading's anchor.
    pub target: String,
}

/// A page's shell blocks, links and the anchors of its headings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The shell blocks, in order.
    pub blocks: Vec<Block>,
    /// The links, in order.
    pub links: Vec<Link>,
    /// The anchors of the headings.
    pub anchors: Vec<String>,
}

impl Page {
    /// Reads a page.
    pub fn parse(text: &str) -> Self {
        let line_of = |offset: usize| text[..offset].lines().count() + usize::from(text[..offset].ends_with('\n'));
        let (mut page, mut block, mut heading) = (Self::default(), None::<Block>, None::<String>);
        for (event, range) in Parser::new_ext(text, options()).into_offset_iter() {
            match event {
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) if SHELL.contains(&&*language) => {
                    // Behind the fence.
                    block = Some(Block { line: line_of(range.start).max(1) + 1, text: String::new() });
                }
                Event::End(TagEnd::CodeBlock) => page.blocks.extend(block.take()),
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push(Link { line: line_of(range.start).max(1), target: dest_url.into_string() });
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => page.anchors.extend(heading.take().map(|text| anchor(&text))),
                Event::Text(text) | Event::Code(text) => {
                    if let Some(block) = &mut block {
                        block.text.push_str(&text);
                    } else if let Some(heading) = &mut heading {
                        heading.push_str(&text);
                    }
                }
                _ => {}
            }
        }
        page
    }
}

/// The page as HTML, the inside of `<body>`; links to other pages lead to their HTML.
pub fn to_html(text: &str) -> String {
    let mut heading = None::<(usize, String)>;
    let mut events: Vec<Event<'_>> = Vec::new();
    for event in Parser::new_ext(text, options()) {
        let event = match event {
            Event::Start(Tag::Link { link_type, dest_url, title, id }) => {
                let dest_url = match dest_url.strip_suffix(".md") {
                    Some(page) if !dest_url.contains("://") => format!("{page}.html").into(),
                    _ => dest_url,
                };
                Event::Start(Tag::Link { link_type, dest_url, title, id })
            }
            Event::Start(Tag::Heading { .. }) => {
                heading = Some((events.len(), String::new()));
                event
            }
            Event::End(TagEnd::Heading(_)) => {
                if let Some((at, text)) = heading.take()
                    && let Event::Start(Tag::Heading { id, .. }) = &mut events[at]
                {
                    *id = Some(anchor(&text).into());
                }
                event
            }
            Event::Text(ref text) | Event::Code(ref text) => {
                if let Some((_, heading)) = &mut heading {
                    heading.push_str(text);
                }
                event
            }
            other => other,
        };
        events.push(event);
    }
    let mut out = String::new();
    html::push_html(&mut out, events.into_iter());
    out
}

fn options() -> Options {
    Options::ENABLE_TABLES
}

/// The anchor of a heading, as the usual renderers make it.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# A `first` page, of two\n\nSee [it](other.md) and [up](#a-first-page-of-two).\n\n\
                        ```sh\necho 1\necho 2\n```\n\n```yaml\nno: shell\n```\n\n- item\n\n  ```bash\n  echo 3\n  ```\n";

    #[test]
    fn blocks_links_and_headings_are_found_with_their_lines() {
        let page = Page::parse(TEXT);
        let block = |line, text: &str| Block { line, text: text.to_owned() };
        assert_eq!(page.blocks, [block(6, "echo 1\necho 2\n"), block(17, "echo 3\n")]);
        let links: Vec<(usize, &str)> = page.links.iter().map(|link| (link.line, &*link.target)).collect();
        assert_eq!(links, [(3, "other.md"), (3, "#a-first-page-of-two")]);
        assert_eq!(page.anchors, ["a-first-page-of-two"]);
    }

    #[test]
    fn html_has_anchors_and_leads_to_html() {
        let html = to_html(TEXT);
        assert!(html.contains("<h1 id=\"a-first-page-of-two\">"), "{html}");
        assert!(html.contains("href=\"other.html\""), "{html}");
    }
}
