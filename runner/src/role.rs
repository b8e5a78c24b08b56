//! What a role is told about itself. Pure.

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
}
