pub const CASES: &[super::Case] = &[];
