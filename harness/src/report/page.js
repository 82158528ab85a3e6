'use strict';
const data = JSON.parse(document.getElementById('data').textContent);
const byId = id => document.getElementById(id);
const cells = [...document.querySelectorAll('td.c')], rows = [...document.querySelectorAll('tbody tr')];
const search = byId('q'), selects = [...document.querySelectorAll('.filters select')];
const boxes = [...document.querySelectorAll('.filters input[type=checkbox]')];
const hide = document.head.appendChild(document.createElement('style'));
const panel = byId('cell'), body = byId('cell-body');

// The parts of a cell's name, in the order of the axes.
for (const td of cells) td.parts = td.id.split('::');

function apply() {
  const text = search.value.toLowerCase(), outcomes = new Set(boxes.filter(b => b.checked).map(b => b.value));
  const wanted = selects.map(s => s.value), columns = new Set();
  let shown = 0;
  for (const tr of rows) {
    let hits = 0;
    for (const td of tr.querySelectorAll('td.c')) {
      const hit = outcomes.has(td.dataset.o) && td.id.toLowerCase().includes(text) &&
        wanted.every((value, axis) => !value || td.parts[axis] === value);
      td.classList.toggle('dim', !hit);
      if (hit) { hits++; columns.add(td.cellIndex); }
    }
    tr.hidden = hits === 0;
    shown += hits;
  }
  const count = document.querySelectorAll('thead th').length;
  const empty = [];
  for (let i = 1; i < count; i++) if (!columns.has(i)) empty.push(`.matrix tr>:nth-child(${i + 1})`);
  hide.textContent = empty.length ? empty.join(',') + '{display:none}' : '';
  byId('shown').textContent = `${shown} of ${cells.length} cells`;
}

function element(tag, text, name) {
  const e = document.createElement(tag);
  if (text !== undefined) e.textContent = text;
  if (name) e.className = name;
  return e;
}

function section(title, text) {
  if (!text) return;
  body.append(element('h3', title), element('pre', text));
}

function facts(pairs) {
  const table = element('table');
  for (const [key, value] of pairs) {
    if (value === null || value === undefined) continue;
    const tr = element('tr');
    tr.append(element('td', key), element('td', String(value)));
    table.append(tr);
  }
  body.append(table);
}

function show(name) {
  for (const td of cells) td.classList.toggle('on', td.id === name);
  const all = data.cells[name];
  panel.hidden = !all;
  if (!all) return;
  const text = i => i === null ? null : data.texts[i], r = all[0];
  body.replaceChildren(element('h2', name, 'name'), element('span', r.outcome, 'tag ' + r.outcome));
  section('message', text(r.reason));
  section('known, since', text(r.known));
  section('to change it', text(r.remedy));
  section('run it again', r.command);
  facts([['kernel', r.kernel], ['reference', r.reference], ['time', r.ms + ' ms'], ['host', text(r.host)],
    ['commit', r.commit], ['when', r.when], ['record', r.file], ['model', r.model], ...Object.entries(r.metrics)]);
  body.append(element('h3', 'history'));
  const table = element('table', undefined, 'history');
  for (const h of all) {
    const tr = element('tr');
    const tag = element('td');
    tag.append(element('span', h.outcome, 'tag ' + h.outcome));
    tr.append(element('td', h.when), tag, element('td', (h.commit || 'unknown').slice(0, 10)), element('td', text(h.host)));
    table.append(tr);
  }
  body.append(table);
}

const go = () => show(decodeURIComponent(location.hash.slice(1)));
for (const td of cells) {
  td.tabIndex = 0;
  td.addEventListener('click', () => history.replaceState(null, '', '#' + encodeURIComponent(td.id)) || show(td.id));
  td.addEventListener('keydown', e => { if (e.key === 'Enter') td.click(); });
}
byId('close').addEventListener('click', () => history.replaceState(null, '', '#') || show(''));
document.addEventListener('keydown', e => { if (e.key === 'Escape') byId('close').click(); });
search.addEventListener('input', apply);
for (const e of [...selects, ...boxes]) e.addEventListener('change', apply);
addEventListener('hashchange', go);
apply();
go();
