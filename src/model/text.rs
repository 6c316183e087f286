//! Small texts that several rooms need: a hint at the nearest name, a number for people, the text of a panic.

/// `; did you mean …?` if one of the known names is near.
pub(crate) fn nearest(name: &str, known: &[&str]) -> String {
    let scored = known.iter().map(|known| (strsim::damerau_levenshtein(name, known), known));
    match scored.min() {
        Some((distance, known)) if distance <= 1 + name.len() / 4 => format!("; did you mean {known:?}?"),
        _ => String::new(),
    }
}

/// A number with commas between thousands, as people read it.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The text of a panic.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
