// Where the pieces start that byte-level BPE never merges across: the scanners of the engine's pretokenize.rs, whose comments
// have the expressions, each thread from a place where a piece starts for sure.
#include "texts.cuh"


enum { RULE_GPT2 = 0, RULE_LLAMA3 = 1, RULE_QWEN2 = 2, RULE_SMOLLM = 3, RULE_DEFAULT = 4 };

// Properties of a character. BREAK is what an earlier pass of the rule cuts out: for the passes behind it the text ends there.
enum { LETTER = 1, NUMBER = 2, SPACE = 4, BREAK = 8, END = 16, WORD_OR_SPACE = LETTER | NUMBER | SPACE };

struct Char {
    u32 is, len;
};

struct Text {
    const u8* bytes;
    const u8* classes;
    u32 n_classes, rule, first, end;
};

// The character at `at`; bytes that are not well-formed UTF-8 are characters of their own without properties.
__device__ Char look(const Text& t, u32 at) {
    if (at >= t.end) return {END, 0};
    u32 code = t.bytes[at], len = 1;
    if (code >= 0x80) {
        if (code < 0xc2 || code > 0xf4) return {0, 1};
        len = code >= 0xf0 ? 4 : code >= 0xe0 ? 3 : 2;
        if (t.end - at < len) return {0, 1};
        code &= 0x7f >> len;
        for (u32 i = 1; i < len; i++) {
            u32 tail = t.bytes[at + i];
            if ((tail & 0xc0) != 0x80) return {0, 1};
            code = code << 6 | (tail & 0x3f);
        }
        if (len == 3 && (code < 0x800 || (code >= 0xd800 && code <= 0xdfff))) return {0, 1};
        if (len == 4 && (code < 0x10000 || code > 0x10ffff)) return {0, 1};
    }
    return {code < t.n_classes ? t.classes[code] : 0u, len};
}

// As `look`, for a pass that ends where an earlier one cut.
__device__ __forceinline__ Char look_within(const Text& t, u32 at) {
    Char c = look(t, at);
    return c.is & BREAK ? Char{END, 0} : c;
}

__device__ __forceinline__ u32 byte_at(const Text& t, u32 at) { return at < t.end ? t.bytes[at] : 0; }

__device__ __forceinline__ bool line_break(u32 byte) { return byte == '\r' || byte == '\n'; }

// Past the characters with a property of `mask`.
__device__ u32 past(const Text& t, u32 at, u32 mask) {
    for (Char c = look_within(t, at); c.is & mask; c = look_within(t, at)) at += c.len;
    return at;
}

// Past what is not a letter, number or white space.
__device__ u32 past_others(const Text& t, u32 at) {
    for (Char c = look_within(t, at); !(c.is & (WORD_OR_SPACE | END)); c = look_within(t, at)) at += c.len;
    return at;
}

__device__ u32 past_breaks(const Text& t, u32 at) {
    while (line_break(byte_at(t, at))) at++;
    return at;
}

// The run of white space at `at`: up to its last character, unless nothing follows or it is the only one; with `lines`,
// through its last line break if it has one.
__device__ u32 past_spaces(const Text& t, u32 at, bool lines) {
    u32 end = at, last = at, broken = 0;
    Char c = look_within(t, end);
    while (c.is & SPACE) {
        if (lines && line_break(t.bytes[end])) broken = end + 1;
        last = end;
        end += c.len;
        c = look_within(t, end);
    }
    if (broken) return broken;
    return c.is & END || last == at ? end : last;
}

// Length of a contraction at an apostrophe, or 0; `any_case` takes the long s (U+017F) too.
__device__ u32 contraction(const Text& t, u32 at, bool any_case) {
    u32 a = byte_at(t, at + 1), b = byte_at(t, at + 2);
    if (any_case) {
        if (a == 0xc5 && b == 0xbf) return 3;
        if (a >= 'A' && a <= 'Z') a += 32;
        if (b >= 'A' && b <= 'Z') b += 32;
    }
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if (((a == 'r' || a == 'v') && b == 'e') || (a == 'l' && b == 'l')) return 3;
    return 0;
}

__device__ bool digit(const Text& t, u32 at) {
    u32 b = byte_at(t, at);
    return b >= '0' && b <= '9';
}

// Digits of RULE_DEFAULT: three of ASCII apart, and what is between.
__device__ u32 past_triple(const Text& t, u32 at) {
    u32 end = at;
    for (Char c = look_within(t, end); c.is & NUMBER; c = look_within(t, end)) {
        if (digit(t, end) && digit(t, end + 1) && digit(t, end + 2)) return end == at ? at + 3 : end;
        end += c.len;
    }
    return end;
}

__device__ u32 gpt2_end(const Text& t, u32 at) {
    u32 lead = t.bytes[at];
    Char c = look(t, at);
    if (c.is & BREAK) {
        u32 end = at + c.len;
        if (t.rule == RULE_DEFAULT)
            for (c = look(t, end); c.is & BREAK; c = look(t, end)) end += c.len;
        return end;
    }
    u32 len = lead == '\'' ? contraction(t, at, false) : 0;
    if (len) return at + len;
    u32 from = at + (lead == ' ');
    c = look_within(t, from);
    if (c.is & END) return from;
    if (c.is & SPACE) return past_spaces(t, at, false);
    u32 kind = c.is & WORD_OR_SPACE;
    if (!kind) return past_others(t, from + c.len);
    if (kind == NUMBER && t.rule == RULE_DEFAULT) return from > at ? from : past_triple(t, at);
    return past(t, from + c.len, kind);
}

__device__ u32 llama3_end(const Text& t, u32 at) {
    u32 lead = t.bytes[at];
    u32 len = lead == '\'' ? contraction(t, at, true) : 0;
    if (len) return at + len;
    Char c = look(t, at);
    u32 second = at + c.len;
    if (c.is & LETTER) return past(t, second, LETTER);
    Char next = look(t, second);
    if (c.is & NUMBER) {
        u32 end = second;
        for (u32 more = t.rule == RULE_LLAMA3 ? 2 : 0; more && next.is & NUMBER; more--) {
            end += next.len;
            next = look(t, end);
        }
        return end;
    }
    if (next.is & LETTER && !line_break(lead)) return past(t, second + next.len, LETTER);
    if (lead == ' ' && !(next.is & (WORD_OR_SPACE | END))) return past_breaks(t, past_others(t, second + next.len));
    if (!(c.is & SPACE)) return past_breaks(t, past_others(t, second));
    return past_spaces(t, at, true);
}

__device__ __forceinline__ u32 piece_end(const Text& t, u32 at) {
    return t.rule == RULE_LLAMA3 || t.rule == RULE_QWEN2 ? llama3_end(t, at) : gpt2_end(t, at);
}

// Whether a piece starts at `at` whatever the rule made of the text before: the characters on the two sides are neighbours in
// no piece of any rule. It depends on nothing but the text, so that all threads agree. (Inside a character: `before` is nothing,
// and what is here is not a white space.)
__device__ bool surely_starts(const Text& t, u32 at) {
    if (at == t.first) return true;
    u32 before = 0;
    for (u32 back = 1; back <= 4 && at - t.first >= back; back++) {
        if ((t.bytes[at - back] & 0xc0) == 0x80) continue;
        Char c = look(t, at - back);
        if (c.len == back) before = c.is;
        break;
    }
    Char here = look(t, at);
    if (before & LETTER) return !(here.is & LETTER);
    if (before & NUMBER) return !(here.is & NUMBER);
    if (before & SPACE) return line_break(t.bytes[at - 1]) && !(here.is & SPACE);
    return here.is & SPACE && !line_break(t.bytes[at]);
}

// words [n_stretches * STRETCH]: the length of the piece that starts there (TOO_LONG beyond LONGEST), 0 elsewhere. Any grid.
//
// A thread goes from the first sure start of its stretch to the first behind it, which is where another thread starts.
ENTRY __launch_bounds__(THREADS)
bn_tokens_split(const u8* text, const u32* parts, u32 n_parts, const u8* classes, u32 n_classes, u32 rule,
                u32 n_stretches, u8* words) {
    for (u32 s = blockIdx.x * blockDim.x + threadIdx.x; s < n_stretches; s += gridDim.x * blockDim.x) {
        u32 part = part_of(parts, n_parts, s), first = parts[2 * part] * STRETCH;
        Text t = {text, classes, n_classes, rule, first, first + parts[2 * part + 1]};
        u32 at = s * STRETCH, to = at + STRETCH, until = t.end < to ? t.end : to;
        for (u32 i = t.end > at ? t.end : at; i < to; i++) words[i] = 0;
        while (at < until && !surely_starts(t, at)) at++;
        if (at >= until) continue;
        while (at < t.end && (at < to || !surely_starts(t, at))) {
            u32 end = piece_end(t, at);
            words[at] = (u8)(end - at > LONGEST ? (u32)TOO_LONG : end - at);
            while (++at < end) words[at] = 0;
        }
    }
}
