//! What a role is told about itself, and about what went wrong before. Pure.

use sopwith_crds::sop_definition::Role;

/// The system message of a role whose procedure names no template for it.
pub fn system(role: &Role) -> String {
    let mut lines = vec![format!(
        "You are {}.",
        role.profile.as_deref().unwrap_or(&role.name)
    )];
    if let Some(goal) = &role.goal {
        lines.push(format!("Your goal: {goal}"));
    }
    if let Some(constraints) = &role.constraints {
        lines.push(format!("What you keep to: {constraints}"));
    }
    lines.join("\n")
}

/// The user message with the findings of the last attempt behind it, where its template does not show them itself.
pub fn with_findings(user: String, findings: &str, shown: bool) -> String {
    if findings.is_empty() || shown {
        return user;
    }
    format!(
        "{}\n\nYour last attempt did not pass. What was found:\n{findings}",
        user.trim_end()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_told_what_it_is() {
        let mut role = Role {
            name: "qa".into(),
            ..Role::default()
        };
        assert_eq!(system(&role), "You are qa.");
        role.profile = Some("QA Engineer".into());
        role.goal = Some("find bugs".into());
        assert_eq!(system(&role), "You are QA Engineer.\nYour goal: find bugs");
    }

    #[test]
    fn findings_are_told_once() {
        assert_eq!(with_findings("do".into(), "", false), "do");
        assert_eq!(with_findings("do".into(), "x", true), "do");
        assert!(
            with_findings("do\n".into(), "x fails", false)
                .ends_with("did not pass. What was found:\nx fails")
        );
    }
}
