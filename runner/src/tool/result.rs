//! What a model is told of a call: bounded, visibly. Pure.

use crate::llm::{codec::ChatMessage, window::Window};

/// Most bytes of a result that a model is told.
const MOST: usize = 32 << 10;
/// What stands in the place of a result that had to make room.
const MADE_ROOM: &str = "[left out to make room for later results; call again if you need it]";

/// Most bytes of one result for a window: an eighth of what a question may have.
pub(crate) fn most_of(window: &Window) -> usize {
    MOST.min(window.bytes() / 8)
}

/// A text of at most about `most` bytes: its beginning and its end, with a line between them that says what is missing.
pub(crate) fn shortened(text: String, most: usize) -> String {
    if text.len() <= most {
        return text;
    }
    let (mut head, mut tail) = (most / 2, text.len() - most / 2);
    while !text.is_char_boundary(head) {
        head -= 1;
    }
    while !text.is_char_boundary(tail) {
        tail += 1;
    }
    format!(
        "{}\n[… {} of {} bytes left out: ask for less at once …]\n{}",
        &text[..head],
        tail - head,
        text.len(),
        &text[tail..]
    )
}

/// Lets the oldest results make room until a conversation fits into what a window leaves for it. The results of the last
/// turn stay: they are what the model waits for.
pub(crate) fn make_room(messages: &mut [ChatMessage], window: &Window) {
    let room = window.bytes();
    let mut size: usize = messages.iter().map(size).sum();
    let last = messages
        .iter()
        .rposition(|message| !message.calls.is_empty());
    let olds = messages.iter_mut().take(last.unwrap_or(0));
    for old in olds.filter(|message| message.role == "tool") {
        if size <= room {
            return;
        }
        if old.content.len() > MADE_ROOM.len() {
            size -= old.content.len() - MADE_ROOM.len();
            MADE_ROOM.clone_into(&mut old.content);
        }
    }
}

fn size(message: &ChatMessage) -> usize {
    let calls: usize = message.calls.iter().map(|call| call.arguments.len()).sum();
    message.content.len() + calls
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::codec::FunctionCall;

    fn window_of(tokens: u32, answer: u32) -> Window {
        Window {
            model: "m".into(),
            tokens,
            answer,
        }
    }

    #[test]
    fn a_long_result_says_what_is_missing() {
        assert_eq!(shortened("abc".into(), 3), "abc");
        assert_eq!(
            shortened("äbcdefghïj".into(), 5),
            "ä\n[… 9 of 12 bytes left out: ask for less at once …]\nj"
        );
        let long = shortened("x".repeat(100_000), 1000);
        assert!(
            long.len() < 1100 && long.contains("99000 of 100000 bytes"),
            "{}",
            long.len()
        );
    }

    #[test]
    fn a_result_takes_an_eighth_of_the_window_at_most() {
        for (window, most) in [
            (8_000, 3_000),
            (16_000, 6_000),
            (128_000, MOST),
            (2_000_000, MOST),
        ] {
            assert_eq!(most_of(&window_of(window, 0)), most);
        }
    }

    #[test]
    fn the_oldest_results_make_room_and_the_newest_stay() {
        let call = FunctionCall::default();
        let turn = |size: usize| {
            [
                ChatMessage::calling("", vec![call.clone()]),
                ChatMessage::result(call.clone(), "x".repeat(size)),
            ]
        };
        let mut messages = vec![ChatMessage::new("user", "q".repeat(300))];
        messages.extend([turn(600), turn(600), turn(600)].concat());
        let whole = messages.clone();
        // 2100 bytes; 800 tokens of window less 100 of answer are 2100 bytes.
        make_room(&mut messages, &window_of(800, 100));
        assert_eq!(messages, whole);
        make_room(&mut messages, &window_of(700, 100));
        assert_eq!(
            (messages[2].content.as_str(), messages[4].content.len()),
            (MADE_ROOM, 600)
        );
        make_room(&mut messages, &window_of(200, 100));
        assert_eq!(messages[4].content, MADE_ROOM);
        assert_eq!(
            (messages[0].content.len(), messages[6].content.len()),
            (300, 600)
        );
    }
}
