// What VS Code's Jupyter extension does by way of @jupyterlab/services; prints JSON, a line a step.
import { createRequire } from 'module';
import { pathToFileURL } from 'url';

const [home, base, attach] = process.argv.slice(2);
const require = createRequire(pathToFileURL(`${home}/node_modules/`));
const WebSocket = require('ws');
const services = require('@jupyterlab/services');
console.debug = console.warn = () => {}; // where the library says that it connects

const serverSettings = services.ServerConnection.makeSettings({
  baseUrl: base, wsUrl: base.replace('http', 'ws'), token: 'sesame', appendToken: true,
  WebSocket, fetch, Request, Headers,
});
const kernelManager = new services.KernelManager({ serverSettings });
const sessions = new services.SessionManager({ serverSettings, kernelManager });
await sessions.ready;

const tell = (step, value) => console.log(JSON.stringify([step, value]));

async function run(kernel, code, options = {}) {
  const future = kernel.requestExecute({ code, ...options });
  const output = [];
  future.onIOPub = ({ content }) => {
    if (content.text) output.push(content.text);
    if (content.data) output.push(content.data['text/plain']);
  };
  future.onStdin = ({ header }) => {
    if (header.msg_type === 'input_request')
      kernel.sendInputReply({ status: 'ok', value: 'typed' }, header);
  };
  const { content } = await future.done;
  return [content.ename ?? content.status, output.join('')];
}

tell('running', [...sessions.running()].map((model) => model.path).sort());
const own = await sessions.startNew({
  path: 'x/a.ipynb-1', name: 'a.ipynb', type: 'notebook', kernel: { name: 'python3' },
});
tell('cell', await run(own.kernel, "print('hi')\n6 * 7"));
tell('input', await run(own.kernel, 'input()', { allow_stdin: true }));
tell('error', await run(own.kernel, '1 / 0'));
const { content } = await own.kernel.requestComplete({ code: 'pri', cursor_pos: 3 });
tell('complete', content.matches.includes('print'));

await run(own.kernel, `
from comm import get_comm_manager
def opened(comm, message):
    comm.on_msg(lambda m: comm.send({}, buffers=[bytes(b)[::-1] for b in m['buffers']]))
get_comm_manager().register_target('echo', opened)`);
const comm = own.kernel.createComm('echo');
const echoed = new Promise((resolve) => { comm.onMsg = resolve; });
await comm.open({}).done;
comm.send({}, {}, [new Uint8Array([1, 2, 3]).buffer]);
const { buffer, byteOffset, byteLength } = (await echoed).buffers[0];
tell('comm', [...new Uint8Array(buffer, byteOffset, byteLength)]);

const sleeping = run(own.kernel, "import time; print('on', flush=True); time.sleep(60)");
await new Promise((resolve) => own.kernel.iopubMessage.connect((_, m) => m.content.text && resolve()));
await own.kernel.interrupt();
tell('interrupt', await sleeping);
await own.setPath('x/b.ipynb');
tell('path', own.path);
await own.kernel.restart();
tell('restart', await run(own.kernel, '6 * 7'));

const model = [...sessions.running()].find((model) => model.path === attach).kernel;
const attached = kernelManager.connectTo({ model });
tell('attach', await run(attached, 'secret'));
attached.dispose();
await services.KernelAPI.shutdownKernel(model.id, serverSettings);
await own.shutdown();
process.exit(0);
