//! The architecture `bitnet-b1.58` for the vendored bitnet.cpp of 2024, which knows `bitnet` only.
//!
//! Microsoft's 2B-4T differs from `bitnet` in its activation alone: relu(gate)^2 in place of SiLU(gate). So it becomes a
//! second architecture beside the first, with the same hyper-parameters, tensors, RoPE pairing and graph. An edit whose
//! place is not there exactly as often as expected is an error: these sources are then not the ones that were read.

/// What is added to `src/llama.cpp`.
pub fn apply(text: &str) -> Result<String, String> {
    // The architecture itself, behind `bitnet` in the enumeration and in the table of names.
    let text = replace(text, "    LLM_ARCH_BITNET,\n    LLM_ARCH_T5,", 1, |_| {
        "    LLM_ARCH_BITNET,\n    LLM_ARCH_BITNET_B158,\n    LLM_ARCH_T5,".to_owned()
    })?;
    let text = replace(&text, "    { LLM_ARCH_BITNET,          \"bitnet\"       },\n", 1, |line| {
        format!("{line}    {{ LLM_ARCH_BITNET_B158,     \"bitnet-b1.58\" }},\n")
    })?;
    // Names of tensors: those of `bitnet`.
    let start = "    {\n        LLM_ARCH_BITNET,\n        {\n";
    let from = text.find(start).ok_or("the names of bitnet's tensors are not there")?;
    let end = "\n    },\n";
    let to = text[from..].find(end).ok_or("the names of bitnet's tensors have no end")? + from + end.len();
    let names = text[from..to].to_owned();
    let copy = names.replace("LLM_ARCH_BITNET,", "LLM_ARCH_BITNET_B158,");
    let text = replace(&text, &names, 1, |names| format!("{names}{copy}"))?;
    // Hyper-parameters, tensors, graph, RoPE: wherever `bitnet` is a case.
    let text = replace(&text, "case LLM_ARCH_BITNET:\n", 4, |case| {
        format!("{case}        case LLM_ARCH_BITNET_B158: // as bitnet\n")
    })?;
    // The difference.
    let act = "                    LLM_FFN_SILU, LLM_FFN_PAR, cb, il);\n            cb(cur, \"ffn_sub_out\", il);";
    replace(&text, act, 1, |act| {
        act.replace("LLM_FFN_SILU", "model.arch == LLM_ARCH_BITNET_B158 ? LLM_FFN_RELU_SQR : LLM_FFN_SILU")
    })
}

fn replace(text: &str, old: &str, times: usize, new: impl Fn(&str) -> String) -> Result<String, String> {
    match text.matches(old).count() {
        found if found == times => Ok(text.replace(old, &new(old))),
        found => Err(format!("`{}` is there {found} times, expected {times}", old.trim())),
    }
}
