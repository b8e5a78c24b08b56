//! Fitting a question into a model's window: values are shortened, and say so; the procedure's own words never are. Pure.
//!
//! The longest values are cut first, all to the same length, so the same question is fitted in the same way whenever it is
//! asked. What is kept of a value is its beginning and, half as long, its end.

use sopwith_crds::language::Part;

use super::draft::Draft;
use crate::llm::{codec::ChatMessage, window::Window};

/// Bytes to which a value may be cut at most: less says nothing.
const LEAST: usize = 400;

/// A question that fits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fitted {
    /// System and user message.
    pub messages: Vec<ChatMessage>,
    /// The values that were shortened.
    pub shortened: Vec<String>,
}

/// A question that does not fit, however much is left out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the question has {least} bytes, {fixed} of them the procedure's own words, even with every value cut to {LEAST}; {window}. \
     Let the templates say less or show fewer values, or give the role a model with a larger contextWindow"
)]
pub struct NoRoom {
    /// Bytes of words that stay.
    pub fixed: usize,
    /// Bytes at the least.
    pub least: usize,
    /// What there would be room for.
    pub window: String,
}

impl Draft {
    /// The question, fitted into a window together with `more` bytes that are sent with it.
    pub fn fitted(&self, window: &Window, more: usize) -> Result<Fitted, NoRoom> {
        let parts = || self.system.iter().chain(&self.user);
        let fixed: usize = more
            + parts()
                .filter(|part| part.value.is_none())
                .map(size)
                .sum::<usize>();
        let values: Vec<usize> = parts()
            .filter(|part| part.value.is_some())
            .map(size)
            .collect();
        let Some(most) = most_of_each(&values, window.bytes().saturating_sub(fixed)) else {
            return Err(NoRoom {
                fixed,
                least: fixed + values.iter().map(|size| LEAST.min(*size)).sum::<usize>(),
                window: window.to_string(),
            });
        };
        let text = |parts: &[Part]| -> String {
            let texts = parts.iter().map(|part| match &part.value {
                Some(_) if size(part) > most => cut(&part.text, most),
                _ => part.text.clone(),
            });
            texts.collect()
        };
        let long = parts().filter(|part| part.value.is_some() && size(part) > most);
        let mut shortened: Vec<String> = long.filter_map(|part| part.value.clone()).collect();
        shortened.sort();
        shortened.dedup();
        Ok(Fitted {
            messages: vec![
                ChatMessage::new("system", text(&self.system)),
                ChatMessage::new("user", text(&self.user)),
            ],
            shortened,
        })
    }
}

const fn size(part: &Part) -> usize {
    part.text.len()
}

/// The most bytes that each value may have for all to fit into `room`; none where even the least do not.
fn most_of_each(values: &[usize], room: usize) -> Option<usize> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let mut left = room;
    for (index, size) in sorted.iter().enumerate() {
        // What each of those that are not placed yet would get.
        let each = left / (sorted.len() - index);
        if *size > each {
            return (each >= LEAST).then_some(each);
        }
        left -= size;
    }
    Some(usize::MAX)
}

/// A text of at most `most` bytes with a mark of what was left out; lines stay whole where they are not too long.
pub fn cut(text: &str, most: usize) -> String {
    let all = text.chars().count();
    // As long as the mark can get.
    let mark = mark(all, all).len();
    let keep = most.saturating_sub(mark);
    let head = beginning(text, keep - keep / 3);
    let tail = ending(&text[head.len()..], keep / 3);
    let left_out = text[head.len()..text.len() - tail.len()].chars().count();
    format!("{head}{}{tail}", self::mark(left_out, all))
}

fn mark(left_out: usize, all: usize) -> String {
    format!("\n[… {left_out} of {all} characters left out …]\n")
}

/// The beginning of a text, up to the end of a line where one is near.
fn beginning(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at));
    let end = end.unwrap_or_default();
    let text = &text[..end];
    match text.rfind('\n') {
        Some(line) if line >= end - end / 4 => &text[..line],
        _ => text,
    }
}

/// The end of a text, from the beginning of a line where one is near.
fn ending(text: &str, most: usize) -> &str {
    let start = text.len().saturating_sub(most);
    let start = (start..=text.len()).find(|at| text.is_char_boundary(*at));
    let start = start.unwrap_or(text.len());
    let text = &text[start..];
    match text.find('\n') {
        Some(line) if line < text.len() / 4 => &text[line + 1..],
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(bytes: usize) -> Window {
        Window {
            model: "small".into(),
            tokens: u32::try_from(bytes / 3).unwrap() + 100,
            answer: 100,
        }
    }

    fn draft(values: &[usize]) -> Draft {
        let mut user = vec![Part::words("Do this:\n")];
        for (index, size) in values.iter().enumerate() {
            user.push(Part::value(format!("v{index}"), "x".repeat(*size)));
            user.push(Part::words(";"));
        }
        Draft {
            system: vec![Part::words("You are it.")],
            user,
        }
    }

    #[test]
    fn the_longest_values_are_cut_first_and_to_the_same_length() {
        for (values, room, cut) in [
            (&[3000, 500, 2000][..], 6000, &[][..]),
            (&[3000, 500, 2000], 5000, &["v0"]),
            (&[3000, 500, 2000], 3000, &["v0", "v2"]),
            (&[3000, 300, 2000], 1500, &["v0", "v2"]),
        ] {
            let fitted = draft(values).fitted(&window(room), 0).unwrap();
            assert_eq!(fitted.shortened, cut, "{room}");
            let user = &fitted.messages[1].content;
            assert!(
                user.len() + 11 <= room && user.len() > room * 3 / 4 - 500,
                "{}",
                user.len()
            );
            assert_eq!(user.matches("characters left out").count(), cut.len());
            assert!(user.starts_with("Do this:\nx") && user.ends_with("x;"));
        }
    }

    #[test]
    fn what_is_sent_besides_takes_room_too() {
        let draft = draft(&[3000]);
        assert!(draft.fitted(&window(3100), 0).unwrap().shortened.is_empty());
        let fitted = draft.fitted(&window(3100), 600).unwrap();
        assert!(fitted.messages[1].content.len() <= 2500);
    }

    #[test]
    fn where_nothing_of_the_values_would_be_left_it_does_not_fit() {
        assert_eq!(
            draft(&[3000, 10])
                .fitted(&window(300), 0)
                .unwrap_err()
                .to_string(),
            "the question has 432 bytes, 22 of them the procedure's own words, even with every value cut to 400; the window of small \
             has 200 tokens, of which its answer takes 100, which leaves room for 300 bytes. Let the templates say less or show \
             fewer values, or give the role a model with a larger contextWindow"
        );
    }

    #[test]
    fn the_mark_says_how_much_was_left_out_and_lines_stay_whole() {
        let lines: Vec<String> = (0..100).map(|n| format!("line {n}\n")).collect();
        let lines = lines.concat();
        assert_eq!(
            cut(&lines, 130),
            "line 0\nline 1\nline 2\nline 3\nline 4\nline 5\nline 6\nline 7\n[… 711 of 790 characters left out …]\nline 97\nline 98\nline 99\n"
        );
        let wide = "ü".repeat(1000);
        for most in [45, 46, 100, 101, 999, 1999] {
            let cut = cut(&wide, most);
            assert!(cut.len() <= most, "{most}: {}", cut.len());
            let kept = cut.chars().filter(|c| *c == 'ü').count();
            assert!(
                cut.contains(&format!("[… {} of 1000", 1000 - kept)),
                "{cut}"
            );
        }
    }
}
