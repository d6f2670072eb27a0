//! Matching of names that are typed from memory.

/// The best rank: the text is the name.
pub(super) const EXACT: u32 = 0;
/// Ranks below this one are matches of the text itself, without a mistyped or missing character.
pub(super) const MISTYPED: u32 = 40;

/// Returns how well `text` matches `name`, without regard to case: a lower rank is better. `None` if it does not.
pub(super) fn rank(name: &str, text: &str) -> Option<u32> {
    let (name, text) = (name.to_lowercase(), text.to_lowercase());
    if name == text {
        return Some(EXACT);
    }
    if let Some(at) = name.find(&text) {
        let starts_word = name.get(..at)?.chars().next_back().is_none_or(|before| !before.is_alphanumeric());
        return Some(if at == 0 {
            1
        } else if starts_word {
            2
        } else {
            3
        });
    }
    let mut words = text.split(separates).filter(|word| !word.is_empty());
    if text.contains(separates) && words.clone().next().is_some() && words.all(|word| name.contains(word)) {
        return Some(4);
    }
    let (name, text): (Vec<char>, Vec<char>) = (name.chars().collect(), text.chars().collect());
    if let Some(gaps) = gaps(&name, &text)
        && gaps <= text.len() * 2
    {
        return Some(10 + u32::try_from(gaps.min(20)).unwrap_or(20));
    }
    let most = match text.len() {
        0..4 => return None,
        4..8 => 1,
        _ => 2,
    };
    let distance = starts(&name).map(|start| distance(&text, start)).min()?;
    (distance <= most).then(|| MISTYPED + u32::try_from(distance).unwrap_or(0))
}

fn separates(c: char) -> bool {
    !c.is_alphanumeric()
}

/// The name from the start of each of its words on.
fn starts(name: &[char]) -> impl Iterator<Item = &[char]> {
    let is_start = |at: &usize| at.checked_sub(1).and_then(|before| name.get(before)).is_none_or(|c| separates(*c));
    (0..name.len()).filter(is_start).filter_map(|at| name.get(at..))
}

/// Returns how many characters of `name` lie between the first and the last character of `text`, if all of them are in
/// `name` in this order and the first of them starts a word.
fn gaps(name: &[char], text: &[char]) -> Option<usize> {
    let (first, rest) = text.split_first()?;
    let from = |start: &[char]| {
        let mut place = 0;
        for wanted in rest {
            place += 1 + start.get(place + 1..)?.iter().position(|c| c == wanted)?;
        }
        Some(place - rest.len())
    };
    starts(name).filter(|start| start.first() == Some(first)).filter_map(from).min()
}

/// Returns the number of characters to insert, remove, replace or swap with the next that turn `text` into the start of
/// `name` that is most like it.
fn distance(text: &[char], name: &[char]) -> usize {
    // A longer start of the name is never closer.
    let name = name.get(..text.len() + 2).unwrap_or(name);
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=name.len()).collect();
    for (line, typed) in text.iter().enumerate() {
        let mut next = vec![line + 1];
        for (column, known) in name.iter().enumerate() {
            let at = |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX - 1);
            let replaced = at(&row, column) + usize::from(typed != known);
            let mut cost = replaced.min(at(&row, column + 1) + 1).min(at(&next, column) + 1);
            let previous =
                |list: &[char], index: usize| index.checked_sub(1).and_then(|index| list.get(index).copied());
            if previous(text, line) == Some(*known) && previous(name, column) == Some(*typed) && typed != known {
                cost = cost.min(at(&before, column - 1) + 1);
            }
            next.push(cost);
        }
        before = std::mem::replace(&mut row, next);
    }
    row.into_iter().min().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn better_matches_have_lower_ranks() {
        let ranks: Vec<_> = [
            ("planner-us", "planner-us"),
            ("planner-us", "plan"),
            ("planner-us", "us"),
            ("planner-us", "lanner"),
            ("planner-us", "us planner"),
            ("planner-us", "plus"),
            ("planner-us", "plannre"),
        ]
        .map(|(name, text)| rank(name, text).unwrap_or(u32::MAX))
        .to_vec();
        assert!(ranks.is_sorted_by(|a, b| a < b), "{ranks:?}");
    }

    #[test]
    fn small_typing_errors_are_forgiven() {
        for (name, text) in [
            ("Capabilities", "capabilites"),
            ("Capabilities", "cpabilities"),
            ("Signing keys", "signign"),
            ("planner-us", "plamner"),
            ("invoice-reader", "raeder"),
            ("Zoë Example", "zoë exmple"),
        ] {
            assert!(rank(name, text).is_some(), "{text} must find {name}");
        }
        for (name, text) in [("planner", "xyz"), ("planner", "zebra"), ("planner", "plow"), ("a", "abcdefgh")] {
            assert_eq!(rank(name, text), None, "{text} must not find {name}");
        }
    }
}
