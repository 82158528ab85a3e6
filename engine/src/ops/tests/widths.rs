//! Which widths operations take, and which slots they touch.

use super::*;

/// What an operation reads and writes, and which widths it takes: `fits` and what it is then wide, or what it says.
#[test]
fn widths_that_fit_and_those_that_do_not() {
    // Matrices 4 x 6, 6 x 4, 1 x 4; vectors of 4, 2, none and 6.
    let tensors = Few::default().matrix(6, &[0.0; 24]).matrix(4, &[0.0; 24]).matrix(4, &[0.0; 4]);
    let tensors = tensors.vector(&[1.0; 4]).vector(&[1.0; 2]).vector(&[]).vector(&[1.0; 6]);
    let attention = |heads, kv_heads, dim| Attention { layer: 0, heads, kv_heads, dim, scale: 1.0, window: None };
    let rotate = |heads, dim| Rotate { slot: Query, heads, dim, kind: Rope::Norm, rope: RopeId(0) };
    let rms = |weight| RmsNorm { src: Hidden, dst: Side, weight: VectorId(weight), eps: 1e-5 };
    let layer = |weight, bias| {
        let [weight, bias] = [weight, bias].map(VectorId);
        LayerNorm { src: Hidden, dst: Side, weight, bias, eps: 1e-5 }
    };
    let expert = |gate, up, down| {
        let [gate, up, down] = [gate, up, down].map(MatrixId);
        Expert { gate, up, down }
    };
    let experts =
        |used, experts: &[Expert]| Experts { src: Hidden, dst: Side, experts: experts.to_vec(), used, limit: 7.0 };
    let good = expert(1, 1, 0);
    let split = |parts| Split { src: Side, parts };
    let (hidden, query) = (&[(Hidden, 4)][..], &[(Query, 8), (Key, 4), (Value, 4)][..]);
    let routed: &[(Slot, usize)] = &[(Hidden, 4), (Router, 2)];
    // Before, the operation, and the width of its result or a word of the complaint.
    type Row<'a> = (&'a [(Slot, usize)], Op, Result<(Slot, usize), &'a str>);
    let rows: Vec<Row<'_>> = vec![
        (&[], Embed { table: MatrixId(0), dst: Residual }.into(), Ok((Residual, 6))),
        (&[], Positions { slot: Hidden, table: MatrixId(1) }.into(), Err("nothing is in Hidden")),
        (hidden, Positions { slot: Hidden, table: MatrixId(1) }.into(), Ok((Hidden, 4))),
        (hidden, Positions { slot: Hidden, table: MatrixId(0) }.into(), Err("a table of 6 columns for rows of 4")),
        (hidden, rms(0).into(), Ok((Side, 4))),
        (hidden, rms(1).into(), Ok((Side, 4))),
        (hidden, rms(2).into(), Err("a weight of 0 elements for rows of 4")),
        (hidden, rms(3).into(), Err("a weight of 6 elements for rows of 4")),
        (&[(Hidden, 8)], rms(3).into(), Err("a weight of 6 elements for rows of 8")),
        (hidden, layer(0, 0).into(), Ok((Side, 4))),
        (hidden, layer(0, 1).into(), Err("a weight or bias of 2 elements for rows of 4")),
        (hidden, layer(1, 0).into(), Err("a weight or bias of 2 elements for rows of 4")),
        (hidden, Linear { src: Hidden, dst: Up, weight: MatrixId(1) }.into(), Ok((Up, 6))),
        (
            hidden,
            Linear { src: Hidden, dst: Up, weight: MatrixId(0) }.into(),
            Err("a matrix of 6 columns for rows of 4"),
        ),
        (hidden, Bias { slot: Hidden, bias: VectorId(0) }.into(), Ok((Hidden, 4))),
        (hidden, Bias { slot: Hidden, bias: VectorId(1) }.into(), Err("a bias of 2 elements for rows of 4")),
        (hidden, Scale { slot: Hidden, factor: 1.0 }.into(), Ok((Hidden, 4))),
        (&[], Scale { slot: Hidden, factor: 1.0 }.into(), Err("nothing is in Hidden")),
        (&[(Side, 4)], split([(Query, 1), (Key, 2), (Value, 1)]).into(), Ok((Key, 2))),
        (&[(Side, 4)], split([(Query, 2), (Key, 2), (Value, 1)]).into(), Err("rows of 4 elements are split into 5")),
        (query, rotate(2, 4).into(), Ok((Query, 8))),
        (query, rotate(2, 6).into(), Err("rows of 8 elements for 2 heads of 6")),
        (query, CacheAppend { layer: 0 }.into(), Ok((Key, 4))),
        (&[(Key, 4), (Value, 2)], CacheAppend { layer: 0 }.into(), Err("keys of 4 elements beside values of 2")),
        (query, attention(4, 2, 2).into(), Ok((Query, 8))),
        (query, attention(2, 2, 4).into(), Err("queries of 8 and keys of 4 elements for 2 heads on 2 of 4")),
        (query, attention(6, 2, 2).into(), Err("for 6 heads on 2 of 2")),
        (&[(Query, 6), (Key, 4), (Value, 4)], attention(3, 2, 2).into(), Err("for 3 heads on 2 of 2")),
        (&[(GateSlot, 4), (Up, 4)], Gate(Gating::Silu).into(), Ok((GateSlot, 4))),
        (&[(GateSlot, 4), (Up, 5)], Gate(Gating::Silu).into(), Err("a gate of 4 elements for 5")),
        (hidden, Gelu { slot: Hidden }.into(), Ok((Hidden, 4))),
        (&[], Gelu { slot: Hidden }.into(), Err("nothing is in Hidden")),
        (routed, experts(2, &[good.clone(), good.clone()]).into(), Ok((Side, 4))),
        (routed, experts(1, std::slice::from_ref(&good)).into(), Err("2 router logits for 1 experts")),
        (routed, experts(0, &[good.clone(), good.clone()]).into(), Err("0 of 2 experts are used")),
        (routed, experts(3, &[good.clone(), good.clone()]).into(), Err("3 of 2 experts are used")),
        (
            routed,
            experts(2, &[good.clone(), expert(0, 1, 0)]).into(),
            Err("matrices do not fit each other and rows of 4"),
        ),
        (routed, experts(2, &[good.clone(), expert(1, 2, 0)]).into(), Err("matrices do not fit")),
        (routed, experts(2, &[good.clone(), expert(1, 1, 1)]).into(), Err("matrices do not fit")),
        (&[(Hidden, 4), (Side, 4)], Add { src: Hidden, dst: Side }.into(), Ok((Side, 4))),
        (
            &[(Hidden, 4), (Side, 5)],
            Add { src: Hidden, dst: Side }.into(),
            Err("rows of 4 elements are added to rows of 5"),
        ),
        (hidden, SelectRows { slot: Hidden }.into(), Ok((Hidden, 4))),
        (&[], SelectRows { slot: Hidden }.into(), Err("nothing is in Hidden")),
    ];
    for (before, op, expected) in rows {
        let mut shapes = Shapes::new(&tensors, "blk.0.some");
        before.iter().for_each(|&(slot, width)| shapes.write(slot, width));
        match (op.as_operation().check(&mut shapes), expected) {
            (Ok(()), Ok((slot, width))) => assert_eq!(shapes.read(slot).unwrap(), width, "{op:?}"),
            (Err(error), Err(words)) => {
                let message = error.to_string();
                assert!(message.starts_with("step `blk.0.some`: ") && message.contains(words), "{op:?}: {message}");
            }
            other => panic!("{op:?}: {other:?}"),
        }
    }
}

/// Of a plan the widest that each slot becomes, and the name of the step that does not fit.
#[test]
fn a_plan_is_followed_from_step_to_step() {
    let tensors = Few::default().matrix(6, &[0.0; 24]).matrix(4, &[0.0; 8]);
    let step = |name: &str, op: Op| Step { name: name.to_owned(), op };
    let linear = |src, dst, weight| Op::from(Linear { src, dst, weight: MatrixId(weight) });
    let mut plan = vec![
        step("embed", Embed { table: MatrixId(0), dst: Hidden }.into()),
        step("first", linear(Hidden, Side, 0)),
        step("second", linear(Side, Hidden, 1)),
    ];
    let widths = Shapes::check(&plan, &tensors).unwrap();
    assert_eq!(Slot::ALL.map(|slot| widths.of(slot)), [0, 6, 0, 0, 0, 0, 0, 4, 0, 0]);
    plan.push(step("third", linear(Hidden, Side, 1)));
    let error = Shapes::check(&plan, &tensors).unwrap_err();
    assert_eq!(error.to_string(), "step `third`: a matrix of 4 columns for rows of 2");
}

/// What is read before what is written; the first of that is shown under the step's name.
#[test]
fn what_operations_touch() {
    let expert = Expert { gate: MatrixId(0), up: MatrixId(0), down: MatrixId(0) };
    let attention = Attention { layer: 0, heads: 1, kv_heads: 1, dim: 1, scale: 1.0, window: None };
    type Row = (Op, &'static [Slot], &'static [Slot], Option<Slot>);
    let rows: Vec<Row> = vec![
        (Embed { table: MatrixId(0), dst: Residual }.into(), &[], &[Residual], Some(Residual)),
        (Positions { slot: Side, table: MatrixId(0) }.into(), &[Side], &[Side], Some(Side)),
        (RmsNorm { src: Up, dst: Side, weight: VectorId(0), eps: 0.0 }.into(), &[Up], &[Side], Some(Side)),
        (
            LayerNorm { src: Up, dst: Side, weight: VectorId(0), bias: VectorId(0), eps: 0.0 }.into(),
            &[Up],
            &[Side],
            Some(Side),
        ),
        (Linear { src: Up, dst: Side, weight: MatrixId(0) }.into(), &[Up], &[Side], Some(Side)),
        (Bias { slot: Side, bias: VectorId(0) }.into(), &[Side], &[Side], Some(Side)),
        (Scale { slot: Side, factor: 1.0 }.into(), &[Side], &[Side], Some(Side)),
        (Split { src: Side, parts: [(Query, 1), (Key, 1), (Value, 1)] }.into(), &[Side], &[Query, Key, Value], None),
        (Rotate { slot: Key, heads: 1, dim: 2, kind: Rope::Norm, rope: RopeId(0) }.into(), &[Key], &[Key], Some(Key)),
        (CacheAppend { layer: 0 }.into(), &[Key, Value], &[], None),
        (attention.into(), &[Query, Key, Value], &[Query], Some(Query)),
        (Gate(Gating::Silu).into(), &[GateSlot, Up], &[GateSlot], Some(GateSlot)),
        (Gelu { slot: Side }.into(), &[Side], &[Side], Some(Side)),
        (
            Experts { src: Hidden, dst: Side, experts: vec![expert], used: 1, limit: 1.0 }.into(),
            &[Hidden, Router],
            &[Side],
            Some(Side),
        ),
        (Add { src: Up, dst: Side }.into(), &[Side, Up], &[Side], Some(Side)),
        (SelectRows { slot: Side }.into(), &[Side], &[Side], None),
    ];
    assert_eq!(rows.len(), UNITS.len());
    for (op, reads, writes, result) in rows {
        assert_eq!(op.as_operation().slots(), [reads, writes], "{op:?}");
        assert_eq!(Step { name: String::new(), op }.result(), result);
    }
    assert_eq!(Slot::ALL.map(Slot::index), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
}
