//! How much longer the steps of a `tokenizer.json` can make a text. Steps multiply: a file of a few KB with forty `Replace` steps
//! that write two letters for one asks for 2^40 bytes.

use serde_json::Value;

/// Most times that a text may grow. Real files stay below 100: `▁` for a space is 3, `ByteLevel` is 2.
pub(super) const MOST: u64 = 4096;

/// The most that one pass of normalizers or pre-tokenizers multiplies the bytes of a text by, saturating.
///
/// `Prepend`, `Strip` and the Unicode forms are counted as 1: repeating them multiplies nothing.
pub(super) fn growth(step: &Value) -> u64 {
    let length = |text: &Value| text.as_str().map_or(0, str::len) as u64;
    match step["type"].as_str() {
        Some("Sequence") => ["normalizers", "pretokenizers"]
            .iter()
            .filter_map(|list| step[*list].as_array())
            .flatten()
            .fold(1, |all, step| all.saturating_mul(growth(step))),
        Some("ByteLevel") => 2,
        // What its table writes for a character is not looked at.
        Some("Precompiled") => 8,
        // An expression may match nothing, and then before every byte.
        Some("Replace") => match length(&step["pattern"]["String"]) {
            0 => length(&step["content"]) + 1,
            pattern => length(&step["content"]).div_ceil(pattern).max(1),
        },
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn steps_multiply() {
        let spaces = json!({ "type": "Replace", "pattern": { "String": " " }, "content": "▁" });
        let shrinks = json!({ "type": "Replace", "pattern": { "String": "abc" }, "content": "a" });
        let odd = json!({ "type": "Replace", "pattern": { "Regex": "x*" }, "content": "yy" });
        assert_eq!([growth(&spaces), growth(&shrinks), growth(&odd), growth(&json!({ "type": "NFKC" }))], [3, 1, 3, 1]);
        let inner = json!({ "type": "Sequence", "pretokenizers": [{ "type": "ByteLevel" }, { "type": "Digits" }] });
        let outer = json!({ "type": "Sequence", "normalizers": [spaces, inner, odd, { "type": "Precompiled" }] });
        assert_eq!(growth(&outer), 3 * 2 * 3 * 8);
        let many = vec![json!({ "type": "ByteLevel" }); 70];
        assert_eq!(growth(&json!({ "type": "Sequence", "pretokenizers": many })), u64::MAX);
        assert_eq!(growth(&Value::Null), 1);
    }
}
