use super::*;
use proptest::prelude::*;

fn gather(slices: IoSlices<'_>) -> Vec<u8> {
    let mut out = vec![0; slices.len()];
    slices.copy_to(&mut out);
    out
}

proptest! {
    #[test]
    fn a_window_is_the_same_as_a_range_of_the_bytes(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..9),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..4),
    ) {
        let pieces: Vec<_> = parts.iter().map(|p| IoSlice::new(p)).collect();
        let mut model = parts.concat();
        let mut window = IoSlices::new(&pieces);
        for (a, b) in cuts {
            let (a, b) = (a.index(model.len() + 1), b.index(model.len() + 1));
            let (a, b) = (a.min(b), a.max(b));
            window = window.slice(a..b);
            model = model[a..b].to_vec();
        }
        prop_assert_eq!(window.len(), model.len());
        prop_assert_eq!(gather(window), model.clone());
        prop_assert_eq!(window.pieces().map(|p| p.len()).sum::<usize>(), model.len());
        prop_assert!(window.pieces().all(|p| !p.is_empty()));
        prop_assert_eq!(window.is_zero(), model.iter().all(|b| *b == 0));
        if let Some(piece) = window.single() {
            prop_assert_eq!(piece.len(), model.len());
        }
    }

    #[test]
    fn writing_through_a_window_changes_only_it(
        mut parts in prop::collection::vec(prop::collection::vec(1u8.., 0..9), 1..9),
        a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>(),
    ) {
        let mut model = parts.concat();
        let (a, b) = (a.index(model.len() + 1), b.index(model.len() + 1));
        let (a, b) = (a.min(b), a.max(b));
        let mut pieces: Vec<_> = parts.iter_mut().map(|p| IoSliceMut::new(p)).collect();
        let mut window = IoSlicesMut::new(&mut pieces).slice(a..b);
        window.fill_zero();
        window.reborrow().slice(0..(b - a) / 2).copy_from(&vec![0xaa; (b - a) / 2]);
        model[a..b].fill(0);
        model[a..a + (b - a) / 2].fill(0xaa);
        prop_assert_eq!(parts.concat(), model);
    }
}

#[test]
fn alignment_is_of_address_and_length() {
    let buf = AlignedBuf::new(8192, 4096).unwrap();
    let all = IoSlices::from(buf.as_slice());
    assert!(buf.as_slice().iter().all(|b| *b == 0));
    assert!(all.is_aligned(4096));
    assert!(all.slice(4096..8192).is_aligned(4096));
    assert!(!all.slice(512..4096).is_aligned(4096));
    assert!(!all.slice(0..512).is_aligned(4096));
    assert!(all.slice(512..1024).is_aligned(512));
    assert!(AlignedBuf::new(0, 4096).unwrap().as_slice().is_empty());
    assert_eq!(
        AlignedBuf::new(1, 3).err().unwrap().raw_os_error(),
        Some(libc::EINVAL)
    );
}

#[test]
#[should_panic(expected = "outside")]
fn a_slice_outside_the_window_panics() {
    let _ = IoSlices::from(&[1u8, 2][..]).slice(1..3);
}
