// The filters above the cases: all, failed, or one category.
function show() {
  const wanted = document.querySelector('.filters input:checked').value;
  for (const one of document.querySelectorAll('details')) {
    const failed = one.dataset.passed === 'no';
    one.hidden = !(wanted === 'all' || one.dataset.category === wanted || (wanted === 'failed' && failed));
  }
}
document.querySelectorAll('.filters input').forEach((radio) => radio.addEventListener('change', show));
