//! Looking at the named steps of a forward pass while it runs: the hook on which layer traces hang.

/// The result of one step for the tokens of one chunk.
#[derive(Debug, Clone, Copy)]
pub struct StepResult<'a> {
    /// Name of the step in the plan.
    pub name: &'a str,
    /// Position of the first row in the sequence; after `select_rows` the rows are those that were asked for.
    pub position: usize,
    /// Rows (tokens).
    pub rows: usize,
    /// Values of a row.
    pub width: usize,
    /// `[rows][width]`.
    pub values: &'a [f32],
}

/// Receives every step's result, in the order of the plan, chunk by chunk. Costs nothing when absent.
pub trait Observer {
    /// Called once after each step that has a result.
    fn step(&mut self, result: StepResult<'_>);
}

impl<F: FnMut(StepResult<'_>)> Observer for F {
    fn step(&mut self, result: StepResult<'_>) {
        self(result);
    }
}
