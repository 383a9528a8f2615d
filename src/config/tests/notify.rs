use crate::config::{ConfigError, Settings};

fn problems(notify: &str) -> Vec<String> {
    let text = format!("clusters: [{{name: a, endpoints: [\"http://127.0.0.1:1\"]}}]\nnotify:\n{notify}");
    match Settings::from_text(&text) {
        Ok(_) => Vec::new(),
        Err(ConfigError::Invalid { problems, .. }) => {
            problems.iter().map(|problem| format!("{}: {}", problem.at, problem.what)).collect()
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn good_targets_are_accepted_and_mistakes_reported_with_their_place() {
    let good = "- {name: graphs, grafana: {url: \"https://grafana.example.org/x\", bearer_token_file: t}}\n\
                - {name: chat, webhook: {url: \"http://127.0.0.1:9/hook?room=1\", timeout: 2s}}\n\
                - {name: pod, kubernetes_event: {}}\n\
                - {name: node, kubernetes_event: {kubeconfig: k, context: c, timeout: 1s, \
                   regarding: {api_version: v1, kind: Node, name: n1.example}}}\n";
    assert_eq!(problems(good), Vec::<String>::new());
    let table = [
        ("- {name: a}\n", "notify[0]: needs exactly one"),
        ("- {name: 'a b', webhook: {url: \"http://x/\"}}\n", "notify[0].name: must be"),
        ("- {name: a, webhook: {url: \"ftp://x/\"}}\n", "notify[0].webhook.url: must begin"),
        ("- {name: a, webhook: {url: \"http://u:p@x/\"}}\n", "notify[0].webhook.url: contains a user"),
        ("- {name: a, grafana: {url: \"http://x/?token=1\"}}\n", "notify[0].grafana.url: contains the parameter"),
        ("- {name: a, webhook: {timeout: 2s}}\n", "notify[0].webhook: needs exactly one of url and url_file"),
        (
            "- {name: a, webhook: {url: \"http://x/\", url_file: f}}\n",
            "notify[0].webhook: needs exactly one of url and",
        ),
        ("- {name: a, webhook: {url: \"http://x/\", timeout: 2h}}\n", "notify[0].webhook.timeout: is"),
        ("- {name: a, webhook: {url: \"http://x/\"}, kubernetes_event: {}}\n", "notify[0]: needs exactly one"),
        ("- {name: a, kubernetes_event: {kubeconfig: k}}\n", "notify[0].kubernetes_event.regarding: is required"),
        ("- {name: a, kubernetes_event: {context: c}}\n", "notify[0].kubernetes_event.context: needs kubeconfig"),
        ("- {name: a, kubernetes_event: {timeout: 1h}}\n", "notify[0].kubernetes_event.timeout: is"),
        (
            "- {name: a, kubernetes_event: {regarding: {api_version: v1, kind: Pod, name: a, namespace: ../b}}}\n",
            "notify[0].kubernetes_event.regarding.namespace: \"../b\" is not valid",
        ),
    ];
    for (text, expected) in table {
        let found = problems(text);
        assert!(found.iter().any(|problem| problem.starts_with(expected)), "{text}: {found:?}");
    }
    let twice = "- {name: a, webhook: {url: \"http://x/\"}}\n- {name: a, webhook: {url: \"http://y/\"}}\n";
    assert_eq!(problems(twice), ["notify[1].name: is used twice"]);
}
