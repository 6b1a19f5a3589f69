//! x
/// x
pub struct HealthPlan {}
