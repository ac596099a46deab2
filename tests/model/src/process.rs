//! Clients that leave, processes that die or shut down.

use crate::{
    engine::Ending,
    record::Operation,
    request::{Answer, Process, RequestId, Stage},
    system::System,
    world::World,
};

impl System {
    pub(crate) fn leave(&self, world: &mut World, id: RequestId) {
        world.left.departures -= 1;
        match world[id].stage {
            // The call is dropped with its connection, and nothing remembers it.
            Stage::Acquiring { .. } => {
                self.leave_on_its_way(world, id);
                world[id].in_doubt = false;
                self.end(world, id, Answer::ClientLeft, Ending::ClientLeft);
            }
            Stage::Executing => world[id].call_at(Stage::Releasing(Answer::ClientLeft)),
            _ => self.end(world, id, Answer::ClientLeft, Ending::ClientLeft),
        }
    }

    /// The process dies, and with it all that it remembers. Requests that arrive later find it started again.
    pub(crate) fn crash(&self, world: &mut World, process: Process) {
        if !world.is_shutting_down(process) {
            world.left.crashes -= 1;
        }
        for id in World::ids() {
            if world[id].process == process && world[id].responsible() {
                self.leave_on_its_way(world, id);
                let request = &mut world[id];
                request.rest_at(Stage::Ended);
                request.answer.get_or_insert(Answer::ConnectionLost);
                request.lost = true;
                request.withdrawing = false;
                request.in_doubt = false;
            }
        }
    }

    /// The process admits nothing more, sends its waiters away, and marks as unknown what still executes. Handlers run
    /// on until it ends.
    pub(crate) fn shut_down(&self, world: &mut World, process: Process) {
        world.left.shutdowns -= 1;
        world.shutting_down[process as usize] = true;
        for id in World::ids()
            .filter(|id| world[*id].process == process)
            .collect::<Vec<_>>()
        {
            match world[id].stage {
                Stage::Executing => {
                    let keeps = self.rules.shutdown_keeps_claim;
                    self.execute(
                        world,
                        id,
                        if keeps {
                            Operation::Abandon
                        } else {
                            Operation::Release
                        },
                    );
                }
                Stage::Waiting => self.end(world, id, Answer::Unavailable, Ending::ShutDown),
                _ => {}
            }
        }
    }
}
