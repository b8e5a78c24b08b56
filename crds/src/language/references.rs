//! What an expression refers to, told apart from the names that its comprehensions bind.

use cel::{
    IdedExpr,
    common::ast::{EntryExpr, Expr},
};

/// What an expression refers to.
#[derive(Debug, Default)]
pub(super) struct References {
    /// Written-out paths of values, the root first, sorted, each once.
    pub(super) paths: Vec<Vec<String>>,
    /// Names of functions and operators.
    pub(super) functions: Vec<String>,
    /// How deep comprehensions nest.
    pub(super) nesting: usize,
    /// How deep the whole expression nests.
    pub(super) depth: usize,
}

pub(super) fn references(expression: &IdedExpr) -> References {
    let mut walk = Walk {
        found: References::default(),
        bound: Vec::new(),
        comprehensions: 0,
        depth: 0,
    };
    walk.expression(expression);
    let mut found = walk.found;
    found.paths.sort();
    found.paths.dedup();
    found.functions.sort();
    found.functions.dedup();
    found
}

struct Walk {
    found: References,
    bound: Vec<String>,
    comprehensions: usize,
    depth: usize,
}

impl Walk {
    fn expression(&mut self, node: &IdedExpr) {
        self.depth += 1;
        self.found.depth = self.found.depth.max(self.depth);
        self.node(node);
        self.depth -= 1;
    }

    fn node(&mut self, node: &IdedExpr) {
        if let Some(path) = written_path(node) {
            self.found.depth = self.found.depth.max(self.depth + path.len());
            if !self.bound.contains(&path[0]) && !path[0].starts_with('@') {
                self.found.paths.push(path);
            }
            return;
        }
        match &node.expr {
            Expr::Call(call) => {
                self.found.functions.push(call.func_name.clone());
                if let Some(target) = &call.target {
                    self.expression(target);
                }
                for argument in &call.args {
                    self.expression(argument);
                }
            }
            Expr::Comprehension(comprehension) => {
                self.expression(&comprehension.iter_range);
                self.expression(&comprehension.accu_init);
                let before = self.bound.len();
                self.bound.push(comprehension.iter_var.clone());
                self.bound.extend(comprehension.iter_var2.clone());
                self.bound.push(comprehension.accu_var.clone());
                self.comprehensions += 1;
                self.found.nesting = self.found.nesting.max(self.comprehensions);
                self.expression(&comprehension.loop_cond);
                self.expression(&comprehension.loop_step);
                self.expression(&comprehension.result);
                self.comprehensions -= 1;
                self.bound.truncate(before);
            }
            Expr::List(list) => {
                for element in &list.elements {
                    self.expression(element);
                }
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    self.entry(&entry.expr);
                }
            }
            Expr::Struct(structure) => {
                for entry in &structure.entries {
                    self.entry(&entry.expr);
                }
            }
            Expr::Select(select) => self.expression(&select.operand),
            Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
        }
    }

    fn entry(&mut self, entry: &EntryExpr) {
        match entry {
            EntryExpr::StructField(field) => self.expression(&field.value),
            EntryExpr::MapEntry(entry) => {
                self.expression(&entry.key);
                self.expression(&entry.value);
            }
        }
    }
}

/// `a.b.c` as `[a, b, c]`; a `has(a.b.c)` counts as well.
fn written_path(node: &IdedExpr) -> Option<Vec<String>> {
    let mut path = Vec::new();
    let mut expression = &node.expr;
    loop {
        match expression {
            Expr::Ident(name) => {
                path.push(name.clone());
                path.reverse();
                return Some(path);
            }
            Expr::Select(select) => {
                path.push(select.field.clone());
                expression = &select.operand.expr;
            }
            _ => return None,
        }
    }
}
