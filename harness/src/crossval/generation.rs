//! Free runs: the most likely continuation of both sides. After a token that differs the two read different texts, so
//! only the first difference says something, and only where the reference was clear about its choice.

use serde::{Deserialize, Serialize};

use super::compare::PositionReport;
use super::reference::Continuation;
use super::tokens::first_difference;

/// Both continuations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerationParity {
    /// Most tokens that were asked for.
    pub max_tokens: usize,
    pub ours: Continuation,
    pub reference: Continuation,
    pub text: String,
    /// Whether the sequences and their ends are the same.
    pub equal: bool,
    /// Index of the first token that differs, or at which one side ended.
    pub first_difference: Option<usize>,
    /// The reference's lead at that index, where its logits were compared.
    pub gap: Option<f64>,
    /// Whether they are equal, or part where the reference was not clear.
    pub agrees: bool,
}

/// The tokens of a continuation that decided something: after the last one nobody was asked, unless it ended there.
pub fn fed(continuation: &Continuation) -> &[u32] {
    let tokens = &continuation.tokens;
    if continuation.ended { tokens } else { &tokens[..tokens.len().saturating_sub(1)] }
}

/// The sequence whose logits a continuation depends on, and the first position of them that counts.
pub fn forced(prompt: &[u32], made: &Continuation) -> (Vec<u32>, usize) {
    ([prompt, fed(made)].concat(), prompt.len().saturating_sub(1))
}

/// The leads among compared positions.
pub fn leads(positions: &[PositionReport]) -> impl Fn(usize) -> Option<f64> {
    move |position| positions.iter().find(|report| report.position == position).map(|report| report.gap)
}

/// The index at which two continuations part.
pub fn parting(ours: &Continuation, reference: &Continuation) -> Option<usize> {
    let ends = (ours.ended != reference.ended).then_some(ours.tokens.len());
    first_difference(&ours.tokens, &reference.tokens).or(ends)
}

impl GenerationParity {
    /// Compares two continuations of a prompt of `prompt_len` tokens. `lead` is by how much the reference's first token led
    /// after a position of its own sequence, teacher-forced, where that is known.
    pub fn of(
        max_tokens: usize,
        sides: (Continuation, Continuation),
        text: String,
        prompt_len: usize,
        lead: &dyn Fn(usize) -> Option<f64>,
        clear_gap: f64,
    ) -> Self {
        let (ours, reference) = sides;
        let first_difference = parting(&ours, &reference);
        // The token at index i was chosen by the logits after the token before it.
        let chosen = first_difference.and_then(|at| (prompt_len + at).checked_sub(1));
        let gap = chosen.and_then(lead);
        let unclear = gap.is_some_and(|gap| gap <= clear_gap);
        // That neither side made anything is not agreement, unless both say that this is the end.
        let nothing = ours.tokens.is_empty() && reference.tokens.is_empty() && !reference.ended;
        Self {
            max_tokens,
            equal: first_difference.is_none(),
            agrees: !nothing && (first_difference.is_none() || unclear),
            ours,
            reference,
            text,
            first_difference,
            gap,
        }
    }

    /// What is wrong in words, if anything.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        if self.agrees {
            return None;
        }
        let Some(at) = self.first_difference else { return Some("neither side made a token".to_owned()) };
        let id = |side: &Continuation| side.tokens.get(at).map_or_else(|| "the end".to_owned(), u32::to_string);
        let gap = self.gap.map_or_else(String::new, |gap| format!(", whose lead is {gap:.3}"));
        Some(format!(
            "the continuations part at token {at}: ours {}, the reference's {}{gap}",
            id(&self.ours),
            id(&self.reference)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(position: usize, gap: f64) -> PositionReport {
        PositionReport {
            position,
            token: 0,
            top1_ours: None,
            top1_reference: None,
            gap,
            cosine: 1.0,
            l2: 0.0,
            max_abs: 0.0,
            kl: 0.0,
            top_k: 1.0,
            exceeded: Vec::new(),
        }
    }

    fn of(ours: (&[u32], bool), reference: (&[u32], bool), gap: f64) -> GenerationParity {
        let side = |(tokens, ended): (&[u32], bool)| Continuation { tokens: tokens.to_vec(), ended };
        // A prompt of three tokens: token 1 of the continuation is chosen after position 3.
        let positions = [position(2, 9.0), position(3, gap)];
        GenerationParity::of(4, (side(ours), side(reference)), String::new(), 3, &leads(&positions), 0.25)
    }

    #[test]
    fn a_difference_counts_where_the_reference_is_clear() {
        let open = |tokens: &'static [u32]| (tokens, false);
        assert!(of(open(&[1, 2]), open(&[1, 2]), 0.0).agrees);
        assert!(of(open(&[1, 2, 3]), open(&[1, 4, 5]), 0.2).agrees);
        let bad = of(open(&[1, 2, 3]), open(&[1, 4, 5]), 0.3);
        assert!(!bad.agrees && bad.problem().is_some_and(|p| p.contains("token 1: ours 2, the reference's 4")));
        assert!(!of(open(&[1, 2, 3]), open(&[7, 4, 5]), 0.1).agrees, "another position's gap does not count");
        assert!(!of(open(&[]), open(&[]), 0.1).agrees, "nothing was made");
        assert!(!of(open(&[1, 2]), open(&[1, 3]), f64::NAN).agrees);
    }

    #[test]
    fn a_continuation_depends_on_all_but_its_last_token() {
        let made = |tokens: &[u32], ended| Continuation { tokens: tokens.to_vec(), ended };
        assert_eq!(forced(&[1, 2], &made(&[3, 4], false)), (vec![1, 2, 3], 1));
        assert_eq!(forced(&[1, 2], &made(&[3, 4], true)), (vec![1, 2, 3, 4], 1));
        assert_eq!(forced(&[1, 2], &made(&[], true)), (vec![1, 2], 1));
        assert_eq!(forced(&[1, 2], &made(&[], false)), (vec![1, 2], 1));
    }

    #[test]
    fn an_end_is_a_choice_like_any_other() {
        assert!(of((&[1], true), (&[1], true), 9.0).agrees);
        assert!(of((&[], true), (&[], true), 9.0).agrees, "both end at once");
        assert!(of((&[1], true), (&[1, 2], false), 0.1).agrees, "the reference is not clear");
        let bad = of((&[1], true), (&[1, 2], false), 0.3);
        assert!(!bad.agrees && bad.problem().is_some_and(|p| p.contains("ours the end, the reference's 2")));
        assert_eq!(of((&[1], true), (&[1], false), 0.3).first_difference, Some(1));
        let ended = Continuation { tokens: vec![1, 2], ended: true };
        assert_eq!((fed(&ended), fed(&Continuation { ended: false, ..ended.clone() })), (&[1, 2][..], &[1][..]));
    }
}
