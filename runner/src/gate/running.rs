//! Having the programs of a gate run in a workbench, and keeping the reports that they leave.

use serde_json::Value;
use sopwith_crds::sop_definition::{Canary, CommandGate, Gate};

use super::Observation;
use crate::{
    action::command::{self, Rendered, RenderedCanary},
    attempt::{Spot, Stopped},
    engine::Engine,
};

impl Engine {
    pub(super) async fn observe(
        &mut self,
        spot: Spot<'_>,
        gate: &Gate,
        asked: &CommandGate,
    ) -> Result<Observation, Stopped> {
        let context = self.context_of_gate(spot);
        let commands: Result<Vec<Rendered>, Stopped> = asked
            .run
            .iter()
            .map(|command| self.rendered(command, &context))
            .collect();
        let canaries: Result<Vec<RenderedCanary>, Stopped> = asked
            .canaries
            .iter()
            .map(|canary| self.canary(canary, &context))
            .collect();
        let (commands, canaries) = (commands?, canaries?);
        let observation =
            command::observe(&self.benches, &self.tree, asked, &commands, &canaries).await?;
        for report in &observation.reports {
            if let Ok(bytes) = &report.bytes {
                self.keep_file(&report.path, bytes.clone().into());
            }
        }
        tracing::info!(
            step = spot.step.name,
            gate = gate.name,
            programs = observation.ran.len(),
            "gate ran"
        );
        Ok(observation)
    }

    fn canary(&self, canary: &Canary, context: &Value) -> Result<RenderedCanary, Stopped> {
        Ok(RenderedCanary {
            name: canary.name.clone(),
            path: self.templates.render_inline(&canary.path, context)?,
            text: self.templates.render(&canary.template, context)?,
            run: self.rendered(&canary.run, context)?,
            exit_code: canary.exit_code.unwrap_or(1).into(),
        })
    }
}
