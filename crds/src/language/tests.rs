use super::*;
use rstest::rstest;
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn context() -> Value {
    json!({
        "idea": "a game",
        "parameters": {"coverage": "0.80", "defects": "3"},
        "exitCode": 0,
        "round": 2,
        "findings": "",
        "reports": {"junit": {"tests": 4, "failures": 0, "errors": 0}, "coverage": {"lineRate": 0.91}},
        "artifacts": {
            "tasks": {"exists": true, "paths": ["t.json"], "json": {"files": [
                {"path": "a.py", "needs": []}, {"path": "b.py", "needs": ["a.py"]}
            ]}},
            "bugs": {"exists": false, "paths": []}
        }
    })
}

#[rstest]
#[case("size(idea) > 0", json!(true))]
#[case("exitCode", json!(0))]
#[case("round + 1", json!(3))]
#[case("double(round)", json!(2.0))]
#[case("reports.junit.tests > 0 && reports.junit.failures + reports.junit.errors == 0", json!(true))]
#[case("reports.coverage.lineRate >= double(parameters.coverage)", json!(true))]
#[case("reports.junit.tests >= 3.5", json!(true))]
#[case("int(parameters.defects)", json!(3))]
#[case("artifacts.tasks.json.files.map(f, f.path)", json!(["a.py", "b.py"]))]
#[case("artifacts.tasks.json.files.filter(f, size(f.needs) > 0)", json!([{"path": "b.py", "needs": ["a.py"]}]))]
#[case("artifacts.tasks.json.files.exists(f, f.path.startsWith('a'))", json!(true))]
#[case("artifacts.tasks.json.files.all(f, f.needs.all(n, artifacts.tasks.json.files.exists(g, g.path == n)))", json!(true))]
#[case("artifacts.tasks.json.files.filter(f, f.path.endsWith('.py')).size()", json!(2))]
#[case("has(artifacts.bugs.json)", json!(false))]
#[case("has(artifacts.tasks.json) ? 'yes' : 'no'", json!("yes"))]
#[case("idea.contains('game') && idea.matches('^a .*')", json!(true))]
#[case("idea.upperAscii().split(' ')", json!(["A", "GAME"]))]
#[case("'a.py' in artifacts.tasks.json.files.map(f, f.path)", json!(true))]
#[case("!artifacts.bugs.exists && findings == ''", json!(true))]
#[case("artifacts.tasks.json.files[0].path", json!("a.py"))]
#[case("{'a': 1}.a", json!(1))]
#[case("['b', 'a', 'b'].distinct().sort()", json!(["a", "b"]))]
#[case("[[1], [2]].flatten().slice(1, 2)", json!([2]))]
#[case("[1, 2].last()", json!(2))]
#[case("[3, 2].falls() && [1].falls() && [].falls() && [5, 1.5].falls() && [1, 0, 0].falls()", json!(true))]
#[case("[2, 2].falls() || [1, 3, 4].falls()", json!(false))]
#[case("9007199254740993", json!(9_007_199_254_740_993_i64))]
fn an_expression_gives(#[case] text: &str, #[case] expected: Value) {
    let expression = Expression::compile(text).unwrap();
    assert_eq!(expression.evaluate(&context()).unwrap(), expected);
}

#[rstest]
#[case("1 +", "line 1, column 4")]
#[case("idea ==\n  == 1", "line 2, column 3")]
#[case("artifacts.prd.json.stories.all(s", "line 1, column 33")]
#[case("lists.range(1000000000)", "calls the unknown function")]
#[case("foo(idea)", "calls the unknown function foo")]
#[case("idea.lenght()", "calls the unknown function lenght")]
#[case(
    "[1].map(a, [1].map(b, [1].map(c, [1].map(d, 1))))",
    "nests map, filter, all or exists 4 deep, the most is 3"
)]
#[case("", "line 1, column 1")]
fn a_mistake_is_found_when_it_is_compiled(#[case] text: &str, #[case] message: &str) {
    let error = Expression::compile(text).unwrap_err().to_string();
    assert!(error.starts_with(message), "{error}");
    assert!(!error.contains('\n'), "{error}");
}

#[test]
fn an_expression_that_is_too_long_is_refused() {
    let text = format!("'{}'", "a".repeat(MAX_EXPRESSION_BYTES));
    let error = Expression::compile(&text).unwrap_err();
    assert_eq!(
        error.to_string(),
        "has 4098 bytes, the most is 4096: split it into several gates"
    );
}

#[rstest]
#[case("idea", "must give true or false, but gives a string")]
#[case("round", "must give true or false, but gives a number")]
#[case("[true]", "must give true or false, but gives a list")]
#[case("nothing == 1", "there is no value named nothing")]
#[case("artifacts.bugs.json.bugs.size() == 0", "there is no value named json")]
#[case("1 / 0 == 1", "divides by zero")]
#[case(
    "artifacts.tasks.json.files[7].path == ''",
    "asks for an item beyond the end of a list"
)]
#[case("idea.matches('(')", "Error executing function 'matches'")]
fn a_mistake_is_found_when_it_is_evaluated(#[case] text: &str, #[case] message: &str) {
    let error = Expression::compile(text)
        .unwrap()
        .holds(&context())
        .unwrap_err()
        .to_string();
    assert!(error.starts_with(message), "{error}");
}

#[test]
fn what_an_expression_sees_is_bounded() {
    let items: Vec<u32> = (0..10_001).collect();
    let error = Expression::compile("size(measures.list) > 0")
        .unwrap()
        .holds(&json!({"measures": {"list": items}}))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "measures.list has 10001 entries, the most that an expression may see is 10000"
    );
}

#[test]
fn a_runaway_ends_at_the_deadline_and_others_go_on() {
    let items: Vec<u32> = (0..10_000).collect();
    let context = json!({"measures": {"list": items}});
    let runaway = Expression::compile(
        "measures.list.all(a, measures.list.all(b, measures.list.all(c, a + b + c >= 0)))",
    )
    .unwrap();
    assert_eq!(runaway.holds(&context), Err(ExpressionError::Deadline));
    assert_eq!(
        Expression::compile("1 == 1").unwrap().holds(&context),
        Ok(true)
    );
}

#[test]
fn the_variables_of_an_expression_are_those_it_does_not_bind() {
    let expression = Expression::compile(
        "artifacts.prd.json.stories.all(s, artifacts.prd.json.ac.exists(a, a.story == s.id)) && has(inputs.x) && s == 1",
    )
    .unwrap();
    assert_eq!(expression.variables(), ["artifacts", "inputs", "s"]);
    let references: Vec<String> = expression
        .references()
        .iter()
        .map(|path| path.join("."))
        .collect();
    assert_eq!(
        references,
        [
            "artifacts.prd.json.ac",
            "artifacts.prd.json.stories",
            "inputs.x",
            "s"
        ]
    );
}

#[rstest]
#[case("1", "+1", "")]
#[case("a", ".a", "")]
#[case("", "(", "")]
#[case("", "[", "")]
#[case("", "!", "true")]
#[case("", "-", "1")]
#[case("", "true?1:", "2")]
#[case("true", "&&true", "")]
#[case("a", "[0]", "")]
#[case("", "{1:", "")]
#[case("", "size(", "")]
#[case("", "'", "")]
fn no_expression_takes_the_process_down(
    #[case] head: &str,
    #[case] repeated: &str,
    #[case] tail: &str,
) {
    let times = (MAX_EXPRESSION_BYTES - head.len() - tail.len()) / repeated.len();
    let text = format!("{head}{}{tail}", repeated.repeat(times));
    if let Ok(expression) = Expression::compile(&text) {
        // Whatever it says: it comes back.
        let _ = expression.evaluate(&json!({"a": {"a": [[0]]}}));
    }
}

fn templates(texts: &[(&str, &str)]) -> Result<Templates, TemplateError> {
    Templates::new(
        &texts
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect::<BTreeMap<_, _>>(),
    )
}

struct Tree;
impl Files for Tree {
    fn file(&self, path: &str) -> Option<String> {
        (path == "a.py").then(|| String::from("print(1)\n"))
    }
    fn glob(&self, pattern: &str) -> Vec<String> {
        if pattern == "*.py" {
            vec![String::from("a.py")]
        } else {
            Vec::new()
        }
    }
    fn diff(&self, since: Since) -> String {
        format!("since {since:?}")
    }
}

#[rstest]
#[case("{{ idea }} & <b>", "a game & <b>")]
#[case("{{ idea }}\n", "a game")]
#[case("{% if inputs is defined %}x{% else %}y{% endif %}", "y")]
#[case("{% if findings %}x{% else %}y{% endif %}", "y")]
#[case(
    "{% for f in artifacts.tasks.json.files %}{{ f.path }};{% endfor %}",
    "a.py;b.py;"
)]
#[case(
    "{{ artifacts.tasks.json.files[0] | json }}",
    r#"{"needs": [], "path": "a.py"}"#
)]
#[case("{{ ' x ' | trim | indent(2, true) }}", "  x")]
#[case(
    "{% for p in glob('*.py') %}{{ p }}: {{ file(p) }}{% endfor %}",
    "a.py: print(1)\n"
)]
#[case("{% include 'part' %}", "part of a game")]
#[case("{{ round + 1 }} {{ reports.coverage.lineRate }}", "3 0.91")]
#[case(
    "{{ diff() }}, {{ diff('step') }}, {{ diff('attempt') }}, {{ diff('run') }}",
    "since Step, since Step, since Attempt, since Run"
)]
fn a_template_gives(#[case] text: &str, #[case] expected: &str) {
    let templates = templates(&[("main", text), ("part", "part of {{ idea }}")])
        .unwrap()
        .with_files(Tree);
    assert_eq!(templates.render("main", &context()).unwrap(), expected);
    assert_eq!(templates.render_inline(text, &context()).unwrap(), expected);
}

#[rstest]
#[case("a\n{% if %}", 2, "unexpected end of block")]
#[case("a\n\n{{ idea", 3, "unexpected end of input")]
#[case("{% endfor %}", 1, "unknown statement endfor")]
fn a_template_that_does_not_compile_names_its_line(
    #[case] text: &str,
    #[case] line: usize,
    #[case] message: &str,
) {
    let error = templates(&[("main", text)]).unwrap_err();
    assert_eq!(
        (error.template.as_str(), error.line),
        ("main", line),
        "{error}"
    );
    assert!(error.message.contains(message), "{error}");
}

#[rstest]
#[case("a\n{{ nothing }}", 2, "undefined value", "nothing")]
#[case("{{ artifacts.prd.text }}", 1, "undefined value", "artifacts.prd")]
#[case("{{ idea | shout }}", 1, "unknown filter", "shout")]
#[case("{{ file('no.py') }}", 1, "there is no text file no.py", "file")]
#[case(
    "{{ diff('ever') }}",
    1,
    "diff(\"ever\") is not known; use diff(\"step\")",
    ""
)]
#[case("{% include 'none' %}", 1, "template not found", "none")]
#[case(
    "{% for a in range(100000) %}{% for b in range(100000) %}{{ b }}{% endfor %}{% endfor %}",
    1,
    "",
    ""
)]
#[case("{% include 'main' %}", 1, "", "")]
fn a_template_that_cannot_be_rendered_says_why(
    #[case] text: &str,
    #[case] line: usize,
    #[case] message: &str,
    #[case] value: &str,
) {
    let error = templates(&[("main", text)])
        .unwrap()
        .render("main", &context())
        .unwrap_err();
    assert_eq!(error.line, line, "{error}");
    assert!(
        error.message.contains(message) && error.message.contains(value),
        "{error}"
    );
}

#[test]
fn the_mistake_of_an_included_template_is_reported_there() {
    let templates = templates(&[
        ("main", "x\n{% include 'part' %}"),
        ("part", "\n\n{{ gone }}"),
    ])
    .unwrap();
    let error = templates.render("main", &context()).unwrap_err();
    assert_eq!(
        (error.template.as_str(), error.line),
        ("part", 3),
        "{error}"
    );
}

#[test]
fn the_output_of_a_template_is_bounded() {
    let templates = templates(&[("main", "{{ 'x' * 2000000 }}")]).unwrap();
    let error = templates.render("main", &context()).unwrap_err();
    assert!(
        error
            .message
            .starts_with("gives 2000000 bytes, the most is 1048576"),
        "{error}"
    );
}

#[test]
fn the_variables_of_a_template_are_those_it_does_not_set() {
    let templates =
        templates(&[("main", "{% set p = artifacts.prd.json %}{{ p.x }}{{ loop }}{% for i in inputs.list %}{{ i }}{% endfor %}")])
            .unwrap();
    assert_eq!(
        templates.undeclared_variables("main"),
        ["artifacts.prd.json", "inputs.list", "loop"]
    );
}

#[test]
fn a_template_shows_what_it_and_those_it_includes_refer_to() {
    let templates = templates(&[
        ("main", "{{ idea }}{% include 'part' %}{% include 'gone' %}"),
        (
            "part",
            "{%- include \"main\" -%}{{ findings }}{% for m in messages %}{% endfor %}",
        ),
        ("alone", "{{ artifacts.findings.text }}"),
    ])
    .unwrap();
    for (template, value, shown) in [
        ("main", "findings", true),
        ("main", "messages", true),
        ("main", "m", false),
        ("alone", "findings", false),
        ("alone", "artifacts", true),
        ("none", "idea", false),
    ] {
        assert_eq!(
            templates.shows(template, value),
            shown,
            "{template} {value}"
        );
    }
}

#[test]
fn the_parts_of_a_text_tell_its_own_words_from_the_values_in_it() {
    let templates = templates(&[
        (
            "main",
            "A {{ idea }} for\n{% for n in [1, 2] %}- {{ n }}\n{% endfor %}{% include 'part' %}{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(idea) }}\n",
        ),
        ("part", "({{  artifacts.design.json\n.x }})"),
    ])
    .unwrap();
    let mut context = context();
    context["artifacts"]["design"] = json!({"json": {"x": "y"}});
    let parts = templates.render_parts("main", &context).unwrap();
    let idea = context["idea"].as_str().unwrap();
    assert_eq!(
        parts,
        [
            Part::words("A "),
            Part::value("idea", idea),
            Part::words(" for\n- "),
            Part::value("n", "1"),
            Part::words("\n- "),
            Part::value("n", "2"),
            Part::words("\n("),
            Part::value("artifacts.design.json .x", "y"),
            Part::words(")"),
            Part::value("m(idea)", format!("<{idea}>")),
        ]
    );
    let whole: String = parts.into_iter().map(|part| part.text).collect();
    assert_eq!(whole, templates.render("main", &context).unwrap());
    let error = templates.render_parts("none", &context).unwrap_err();
    assert_eq!(error.template, "none");
}
