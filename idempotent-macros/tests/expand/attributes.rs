#[idempotent]
/// Documented.
#[allow(clippy::too_many_lines)]
#[inline]
pub async fn handler() {}
