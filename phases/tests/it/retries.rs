//! Which failures of a command are tried again, as the README says.

use crate::program::Stand;

#[test]
fn only_failures_that_may_pass_are_tried_again() {
    const RETRIES: &str = "retries: {count: 2, backoff: 1ms}";
    for (task, attempts) in [
        ("run: 'echo x >> effects; exit 3'", 1),
        ("run: 'echo x >> effects; exit 75'", 1),
        ("run: 'echo x >> effects; exit 3', RETRIES", 3),
        ("run: 'echo x >> effects; exit 3', RETRIES, transient_exit_codes: [7]", 1),
        ("run: 'echo x >> effects; exit 7', RETRIES, transient_exit_codes: [7]", 3),
        ("run: 'echo x >> effects; exit 75', RETRIES, transient_exit_codes: [7]", 3),
        ("run: 'echo x >> effects; sleep 60', timeout: 100ms, RETRIES, transient_exit_codes: [7]", 3),
        ("run: 'echo x >> effects; kill -KILL $$', RETRIES", 1),
        ("run: 'echo x >> effects', outputs: [missing], RETRIES", 1),
        ("run: 'echo x >> effects; echo { > $TASKRUN_OUTPUT', RETRIES", 1),
        ("run: [./no-such-program], RETRIES", 0),
    ] {
        let task = task.replace("RETRIES", RETRIES);
        let stand = Stand::new(&format!("{{version: 1, tasks: {{a: {{{task}}}}}}}"));
        let said = stand.run(&["run"]);
        assert_eq!(said.code, Some(1), "{task}: {}", said.err);
        assert_eq!(stand.read("effects").lines().count(), attempts, "{task}: {}", said.err);
    }
}
