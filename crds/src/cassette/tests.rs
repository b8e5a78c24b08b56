use super::*;
use crate::contract::{
    Digest,
    cassette::{Response, TokenUsage},
};
use serde_json::json;

const FILE: &str = "# By hand.
apiVersion: v1
kind: ConfigMap
metadata:
  name: c
data:
  a.yaml: |
    version: 1
    interactions:
    - key: {step: s, action: x, attempt: 1, turn: 1}
      response:
        content: |
          def f():
              return \"1\"

          # end
    - key: {step: s, action: y, attempt: 1, turn: 1}
      response: {content: \"no\"}
";

fn key(action: &str) -> Key {
    Key {
        step: "s".into(),
        action: action.into(),
        attempt: 1,
        turn: 1,
        ..Key::default()
    }
}

#[test]
fn requests_are_filled_in_and_answers_stay_as_they_are() {
    let file = CassetteFile::parse(FILE).unwrap();
    let body =
        json!({"model": "m", "messages": [{"role": "user", "content": "a: b\n\n  - c\n# d\n"}]});
    let request = Request {
        digest: Some(Digest::of_json(&body)),
        body: Some(body),
    };
    let (text, unasked) = file.filled(&[(key("x"), request.clone())].into()).unwrap();
    assert!(text.starts_with("# By hand.\napiVersion: v1\n"));
    assert_eq!(unasked.len(), 1);
    let again = CassetteFile::parse(&text).unwrap();
    let cassette = again.cassette().unwrap();
    assert_eq!(cassette.interactions[0].request, request);
    assert_eq!(
        cassette.interactions[0].response.content.as_deref(),
        Some("def f():\n    return \"1\"\n\n# end\n")
    );
    let (twice, _) = again.filled(&[(key("x"), request)].into()).unwrap();
    assert_eq!(twice, text);
}

fn interaction(action: &str, content: &str) -> Interaction {
    let body = json!({"model": "m", "messages": [{"role": "user", "content": content}]});
    Interaction {
        key: key(action),
        request: Request {
            digest: Some(Digest::of_json(&body)),
            body: Some(body),
        },
        response: Response {
            status: 200,
            content: Some(content.to_owned()),
            usage: Some(TokenUsage {
                prompt_tokens: 3,
                completion_tokens: 2,
                ..TokenUsage::default()
            }),
            ..Response::default()
        },
    }
}

fn written(interactions: &[Interaction]) -> (Form, Vec<Interaction>) {
    let written = write(
        "run-cassette",
        &["From a run.".to_owned()],
        interactions.to_vec(),
    )
    .unwrap();
    assert!(written.text.starts_with(
        "# From a run.\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: run-cassette\n"
    ));
    let file = CassetteFile::parse(&written.text).unwrap();
    (written.form, file.cassette().unwrap().interactions)
}

#[test]
fn what_was_recorded_is_read_again_to_the_byte() {
    for content in [
        "plain",
        "two\nlines\n",
        "yes",
        "{{ x }} | > ' %",
        "grüße — 漢字 🂡",
    ] {
        let interactions = vec![interaction("x", content), interaction("y", content)];
        let (form, read) = written(&interactions);
        assert_eq!(read, interactions, "{content:?}");
        assert_eq!(form, Form::Readable, "{content:?}");
    }
    // However it is written, it is read as it was.
    for content in [
        "",
        "\n\n  - a: \"b\"\n#c\n\n",
        "trailing  \n blank \n",
        "tab\tand\ttab",
        "line\u{2028}separator",
        "carriage\r\nreturn\r",
        "bell\u{7}",
        "nul\0",
        "\u{feff}mark",
        "next\u{85}line",
    ] {
        let interactions = vec![interaction("x", content)];
        assert_eq!(written(&interactions).1, interactions, "{content:?}");
    }
}

/// Text that hardly compresses.
fn noise(bytes: usize, seed: &str) -> String {
    let mut text = String::with_capacity(bytes + 64);
    let mut digest = Digest::of(seed);
    while text.len() < bytes {
        text.push_str(digest.hex());
        digest = Digest::of(digest.as_str());
    }
    text
}

#[test]
fn what_does_not_fit_into_a_config_map_is_packed_then_loses_its_requests_and_is_said_to_be_too_large()
 {
    let many = |requests: usize, answers: usize| {
        let mut one = interaction("x", &noise(answers, "a"));
        one.request.body = Some(json!(noise(requests, "r")));
        vec![one]
    };
    let without = |interactions: &[Interaction]| {
        let mut without = interactions.to_vec();
        without[0].request.body = None;
        without
    };
    let mebibyte = 1 << 20;
    let all = many(mebibyte / 2, mebibyte / 2);
    assert_eq!(written(&all), (Form::Packed, all));
    let all = many(3 * mebibyte, mebibyte / 2);
    assert_eq!(written(&all), (Form::WithoutRequests, without(&all)));
    let all = many(mebibyte, 3 * mebibyte);
    assert_eq!(written(&all), (Form::TooLarge, without(&all)));
}

#[test]
fn blobs_of_recordings_are_the_same_for_the_same_and_read_again() {
    let interactions = vec![interaction("x", "a\nb"), interaction("y", "")];
    let bytes = encode(&interactions).unwrap();
    assert_eq!(bytes, encode(&interactions).unwrap());
    assert_eq!(decode("blob", &bytes).unwrap(), interactions);
    assert!(decode("blob", b"no gzip").is_err());
    let bad = packed(b"{}\n").unwrap();
    assert!(decode("blob", &bad).is_err());
}

#[test]
fn a_run_is_one_cassette_in_which_the_newer_answer_counts() {
    let plan = RunPlan {
        run: crate::contract::plan::RunIdentity {
            namespace: "demo".into(),
            name: "game".into(),
            ..Default::default()
        },
        ..RunPlan::default()
    };
    let parts = vec![
        vec![interaction("x", "old"), interaction("y", "kept")],
        vec![interaction("x", "new")],
    ];
    let written = of_run(&plan, parts).unwrap();
    assert!(written.text.contains("\n  name: game-cassette\n"));
    let file = CassetteFile::parse(&written.text).unwrap();
    assert_eq!(
        file.cassette().unwrap().interactions,
        [interaction("x", "new"), interaction("y", "kept")]
    );
}

#[test]
fn a_file_takes_what_was_recorded_and_loses_what_was_not_asked_for() {
    let file = CassetteFile::parse(FILE).unwrap();
    let (text, unasked) = file
        .recorded(&[interaction("z", "new"), interaction("x", "again")])
        .unwrap();
    assert_eq!(unasked, [key("y")].into());
    let again = CassetteFile::parse(&text).unwrap();
    assert_eq!(
        again.cassette().unwrap().interactions,
        [interaction("x", "again"), interaction("z", "new")]
    );
    assert!(text.starts_with("# By hand.\n"));
}
