#[idempotent]
/// Documented.
#[cfg(unix)]
#[cfg_attr(feature = "docs", doc = "More, of it.")]
#[cfg_attr(feature = "spans", tracing::instrument)]
#[allow(clippy::too_many_lines)]
#[inline]
pub async fn handler() {}
