//! What a step does: its actions and loops.

use super::{
    Found, defaults, gates,
    names::Scope,
    sop::check_schema,
    templates,
    text::{file_mistake, glob_mistake, is_template, list, path_mistake},
};
use crate::sop_definition::{Action, Command, Loop, Prompt, PromptWrites, Work};

/// The name of a loop's item where `as` gives none.
const ITEM: &str = "item";

pub(super) fn check_action<'a>(
    scope: &Scope<'a>,
    step: &str,
    action: &'a Action,
    found: &mut Found,
) {
    let path = format!("{step}.actions[{}]", action.name);
    if let Some(when) = &action.when {
        templates::expression(scope, &format!("{path}.when"), when, found);
    }
    let kinds = kinds(&action.work) + usize::from(action.repeat.is_some());
    if kinds != 1 {
        found.add(
            path.as_str(),
            format!("has {kinds} of prompt, command, tool, render and loop; it needs exactly one"),
        );
    }
    check_work(scope, &path, &action.work, found);
    if let Some(repeat) = &action.repeat {
        check_loop(scope, &format!("{path}.loop"), repeat, found);
    }
    let scope = scope.in_action();
    for gate in &action.gates {
        gates::check(&scope, &path, gate, found);
    }
}

fn check_loop<'a>(outer: &Scope<'a>, path: &str, repeat: &'a Loop, found: &mut Found) {
    let item = repeat.item_name.as_deref().unwrap_or(ITEM);
    let item = repeat.for_each.as_ref().map(|_| item);
    if let Some(item) = item
        && outer.in_loop(None).mistake(&[item]).is_none()
    {
        found.add(
            format!("{path}.as"),
            format!("`{item}` hides the value of that name; choose another name"),
        );
    }
    check_bounds(path, repeat, found);
    if let Some(list) = &repeat.for_each {
        templates::expression(outer, &format!("{path}.forEach"), list, found);
    }
    let scope = outer.in_loop(item);
    if let Some(until) = &repeat.until {
        templates::expression(&scope, &format!("{path}.until"), until, found);
    }
    if let Some(max) = &repeat.max {
        templates::expression(&scope, &format!("{path}.max"), max, found);
    }
    if repeat.actions.is_empty() {
        found.add(
            format!("{path}.actions"),
            "is empty; say what is done for each item",
        );
    }
    found.repeated(
        &format!("{path}.actions"),
        "action",
        repeat.actions.iter().map(|a| a.name.as_str()),
    );
    for action in &repeat.actions {
        let path = format!("{path}.actions[{}]", action.name);
        if let Some(when) = &action.when {
            templates::expression(&scope, &format!("{path}.when"), when, found);
        }
        let kinds = kinds(&action.work);
        if kinds != 1 {
            found.add(
                path.as_str(),
                format!("has {kinds} of prompt, command, tool and render; it needs exactly one"),
            );
        }
        check_work(&scope, &path, &action.work, found);
        for gate in &action.gates {
            gates::check(&scope, &path, gate, found);
        }
    }
    for gate in &repeat.gates {
        gates::check(&scope, path, gate, found);
    }
}

/// How often a loop goes round, and how much of it at once.
fn check_bounds(path: &str, repeat: &Loop, found: &mut Found) {
    if repeat.for_each.is_none() {
        if repeat.until.is_none() {
            found.add(
                path,
                "has neither forEach nor until; say over what it goes, or when it ends",
            );
        }
        let of_items = [
            ("as", repeat.item_name.is_some()),
            ("parallel", repeat.parallel.is_some()),
        ];
        for (field, _) in of_items.into_iter().filter(|(_, set)| *set) {
            found.add(
                format!("{path}.{field}"),
                "belongs to a loop over a list; give it forEach, or take it away",
            );
        }
    }
    if let Some(max) = &repeat.max {
        let most = defaults::MAX_LOOP_PASSES;
        if repeat.until.is_none() {
            found.add(
                format!("{path}.max"),
                "bounds the passes until a condition holds; say which in until, or take it away",
            );
        }
        if max
            .trim()
            .parse::<i64>()
            .is_ok_and(|max| max != -1 && u32::try_from(max).map_or(true, |max| max > most))
        {
            found.add(
                format!("{path}.max"),
                format!("\"{max}\" is not from 0 to {most}; write -1 for as many as there can be, which are {most}"),
            );
        }
    }
    if repeat.parallel.unwrap_or(1) > 1 {
        check_parallel(path, repeat, found);
    }
}

/// Items at once have no programs: a workbench lays out one tree at a time, and what a program does can be seen by others.
fn check_parallel(path: &str, repeat: &Loop, found: &mut Found) {
    let actions = repeat.actions.iter();
    let programs = actions.filter_map(|action| {
        let what = match &action.work {
            Work {
                command: Some(_), ..
            } => "command",
            Work { tool: Some(_), .. } => "tool",
            _ => return None,
        };
        Some(format!("{path}.actions[{}].{what}", action.name))
    });
    let of_actions = repeat.actions.iter().flat_map(|action| {
        let path = format!("{path}.actions[{}]", action.name);
        action.gates.iter().map(move |gate| (path.clone(), gate))
    });
    let gates = of_actions.chain(repeat.gates.iter().map(|gate| (path.to_owned(), gate)));
    let gates = gates
        .filter(|(_, gate)| gate.command.is_some())
        .map(|(path, gate)| format!("{path}.gates[{}].command", gate.name));
    for path in programs.chain(gates) {
        found.add(
            path,
            "cannot run for several items at once; take parallel away, or run it after the loop, over what all items left",
        );
    }
}

fn kinds(work: &Work) -> usize {
    [
        work.prompt.is_some(),
        work.command.is_some(),
        work.tool.is_some(),
        work.render.is_some(),
    ]
    .into_iter()
    .filter(|set| *set)
    .count()
}

fn check_work(scope: &Scope<'_>, path: &str, work: &Work, found: &mut Found) {
    if let Some(prompt) = &work.prompt {
        check_prompt(scope, &format!("{path}.prompt"), prompt, found);
    }
    if let Some(command) = &work.command {
        check_command(scope, &format!("{path}.command"), command, found);
    }
    if let Some(tool) = &work.tool {
        for (name, value) in &tool.arguments {
            templates::inline(
                scope,
                &format!("{path}.tool.arguments[{name}]"),
                value,
                found,
            );
        }
        if let Some(place) = &tool.path {
            found.add_some(format!("{path}.tool.path"), file_mistake(place));
            templates::inline(scope, &format!("{path}.tool.path"), place, found);
        }
    }
    if let Some(render) = &work.render {
        templates::named(
            scope,
            &format!("{path}.render.template"),
            &render.template,
            found,
        );
        found.add_some(format!("{path}.render.path"), file_mistake(&render.path));
        templates::inline(scope, &format!("{path}.render.path"), &render.path, found);
    }
}

fn check_prompt(scope: &Scope<'_>, path: &str, prompt: &Prompt, found: &mut Found) {
    if let Some((_, step)) = scope.step
        && step.role.is_none()
    {
        found.add(
            path,
            format!(
                "step `{}` has no role that could answer; name one in its field role",
                step.name
            ),
        );
    }
    if let Some(system) = &prompt.system {
        templates::named(scope, &format!("{path}.system"), system, found);
    }
    templates::named(scope, &format!("{path}.template"), &prompt.template, found);
    if let Some(schema) = &prompt.schema {
        check_schema(scope.declared, &format!("{path}.schema"), schema, found);
    }
    check_writes(scope, &format!("{path}.writes"), &prompt.writes, found);
}

fn check_writes(scope: &Scope<'_>, path: &str, writes: &PromptWrites, found: &mut Found) {
    let kinds = usize::from(writes.artifact.is_some())
        + usize::from(writes.path.is_some())
        + usize::from(writes.files.is_some());
    if kinds != 1 {
        found.add(
            path,
            format!("has {kinds} of artifact, path and files; it needs exactly one"),
        );
    }
    if let (Some(name), Some((_, step))) = (&writes.artifact, scope.step) {
        match step.outputs.iter().find(|output| &output.name == name) {
            None => found.add(
                format!("{path}.artifact"),
                format!(
                    "`{name}` is no output of step `{}`; its outputs are: {}",
                    step.name,
                    list(step.outputs.iter().map(|output| output.name.as_str()))
                ),
            ),
            Some(output) if output.path.is_none() => found.add(
                format!("{path}.artifact"),
                format!("artifact `{name}` is a set of files (glob); write to a path or to files that it matches"),
            ),
            Some(_) => {}
        }
    }
    if let Some(place) = &writes.path {
        found.add_some(format!("{path}.path"), file_mistake(place));
        templates::inline(scope, &format!("{path}.path"), place, found);
    }
    for (index, pattern) in writes.files.iter().flatten().enumerate() {
        let path = format!("{path}.files[{index}]");
        found.add_some(path.as_str(), glob_mistake(pattern));
        templates::inline(scope, &path, pattern, found);
    }
}

/// A program to run, of an action or a gate.
pub(super) fn check_command(scope: &Scope<'_>, path: &str, command: &Command, found: &mut Found) {
    match command.argv.first() {
        None => found.add(format!("{path}.argv"), "is empty; name a program"),
        Some(program) if program.trim().is_empty() => {
            found.add(format!("{path}.argv[0]"), "is empty; name a program");
        }
        Some(program) if is_template(program) => found.add(
            format!("{path}.argv[0]"),
            format!("\"{program}\" is a template, but policies allow programs by name; write the program itself"),
        ),
        Some(_) => {}
    }
    for (index, word) in command.argv.iter().enumerate() {
        templates::inline(scope, &format!("{path}.argv[{index}]"), word, found);
    }
    if command.image.trim().is_empty() {
        found.add(
            format!("{path}.image"),
            "is empty; name a workbench image that the policy allows",
        );
    }
    if let Some(place) = &command.working_dir {
        found.add_some(format!("{path}.workingDir"), path_mistake(place));
    }
    for (index, pattern) in command.collect.iter().enumerate() {
        found.add_some(format!("{path}.collect[{index}]"), glob_mistake(pattern));
    }
}
