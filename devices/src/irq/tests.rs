use super::*;

/// Writes down every level it is given.
#[derive(Default)]
struct Log(Mutex<Vec<bool>>);

impl IrqLine for Log {
    fn set(&self, level: bool) {
        self.0.lock().unwrap().push(level);
    }
}

#[test]
fn a_shared_line_is_the_or_of_its_sources_and_moves_on_change_only() {
    let log = Arc::new(Log::default());
    let shared = SharedLine::new(log.clone());
    let (a, b) = (shared.source(), shared.source());
    a.set(true);
    a.set(true);
    b.set(true);
    a.set(false);
    assert_eq!(*log.0.lock().unwrap(), [true]);
    drop(b);
    a.set(false);
    assert_eq!(*log.0.lock().unwrap(), [true, false]);
}
