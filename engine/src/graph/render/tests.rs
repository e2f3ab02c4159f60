use super::super::critical::critical_path;
use super::super::testing::snapshot;
use super::*;

fn sample() -> Graph {
    let yaml = "version: 1
pools: {disk: 2}
tasks:
  CLOUD-0.1: {title: The machine}
  CLOUD-2.10: {needs: [CLOUD-0.1]}
  CLOUD-2.9: {needs: [CLOUD-0.1], title: 'Ärger \"mit\" <b>&amp; \\N`x` {y} [z] #1; *a* _b_'}
  CLOUD-3.1:
    title: \"An object store, with a title so long that\\nit takes more lines than one\"
    needs: [CLOUD-2.9, CLOUD-2.10]
    when_skipped: {CLOUD-2.10: run}
    pool: disk
  hello: {run: echo hello, needs: [CLOUD-3.1]}
  alone: {uses: CLOUD-0.1}
";
    Graph::from_yaml("graph.yaml", yaml).unwrap()
}

fn overlay(graph: &Graph) -> Overlay {
    let states = graph.indices().map(|task| NodeState {
        class: Class::ALL[task.index() % Class::ALL.len()],
        label: format!("since \"{}\"", task.index()),
    });
    Overlay { states: states.collect(), critical: critical_path(graph, |_| 1.0), shown: Vec::new() }
}

#[test]
fn pictures_are_as_they_were_looked_at() {
    let graph = sample();
    let plain = Overlay::default();
    let full = overlay(&graph);
    snapshot("graph.dot", &dot(&graph, &full));
    snapshot("graph.plain.dot", &dot(&graph, &plain));
    snapshot("graph.mermaid", &mermaid(&graph, &full));
    snapshot("graph.json", &json(&graph, &full));
}

#[test]
fn what_is_not_shown_takes_its_needs_along() {
    let graph = sample();
    let shown = graph.with_ancestors([graph.find(&TaskId::new("CLOUD-2.9").unwrap()).unwrap()]);
    let part = Overlay { shown, ..overlay(&graph) };
    for text in [dot(&graph, &part), json(&graph, &part)] {
        assert!(text.contains("CLOUD-0.1") && text.contains("CLOUD-2.9"));
        assert!(!text.contains("CLOUD-3.1") && !text.contains("hello"), "{text}");
    }
    let drawn = mermaid(&graph, &part);
    assert_eq!(drawn.matches("-->").count() + drawn.matches("==>").count(), 1, "{drawn}");
}

#[test]
fn marks_and_fills_tell_the_classes_apart() {
    let distinct = |values: Vec<String>| values.iter().collect::<HashSet<_>>().len() == Class::ALL.len();
    assert!(distinct(Class::ALL.map(|class| class.mark().to_string()).into()));
    assert!(distinct(Class::ALL.map(|class| class.look().fill.to_owned()).into()));
}

#[test]
fn texts_stand_out_from_their_fills() {
    // The contrast of the Web Content Accessibility Guidelines; 4.5 is enough for small text.
    let light = |colour: &str| {
        let part = |at: usize| f64::from(u8::from_str_radix(&colour[at..at + 2], 16).unwrap()) / 255.0;
        let linear = |part: f64| if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) };
        0.2126 * linear(part(1)) + 0.7152 * linear(part(3)) + 0.0722 * linear(part(5))
    };
    for class in Class::ALL {
        let (fill, text) = (light(class.look().fill), light(class.look().text));
        let contrast = (fill.max(text) + 0.05) / (fill.min(text) + 0.05);
        assert!(contrast >= 4.5, "{}: {contrast}", class.name());
    }
}
